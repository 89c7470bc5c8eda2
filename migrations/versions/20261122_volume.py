"""Mail in volume: bulks and their recipients, templates that tenants write, mails that point at either.

Revision ID: 20261122_volume
Revises: 20261122_audience
"""

from alembic import op

revision = "20261122_volume"
down_revision = "20261122_audience"
branch_labels = None
depends_on = None

COLUMNS = """
ALTER TABLE emails
    ADD COLUMN template_version integer,
    ADD COLUMN bulk_id uuid,
    ADD COLUMN resend_of uuid
"""

TABLES = (
    """
    CREATE TABLE bulks (
        id uuid NOT NULL,
        tenant_id uuid NOT NULL,
        mode text NOT NULL,
        status text NOT NULL,
        name text,
        request_id text,
        request jsonb NOT NULL,
        pace integer,
        period double precision,
        scheduled_at timestamptz,
        total integer NOT NULL DEFAULT 0,
        duplicates integer NOT NULL DEFAULT 0,
        refused integer NOT NULL DEFAULT 0,
        expanded integer NOT NULL DEFAULT 0,
        last_seq integer NOT NULL DEFAULT 0,
        next_seq integer NOT NULL DEFAULT 0,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT pk_bulks PRIMARY KEY (id),
        CONSTRAINT ck_bulks_mode CHECK (mode IN ('live', 'test')),
        CONSTRAINT ck_bulks_status CHECK (status IN ('open', 'running', 'paused', 'canceled'))
    ) WITH (fillfactor = 70)
    """,
    """
    CREATE TABLE bulk_recipients (
        bulk_id uuid NOT NULL,
        seq integer NOT NULL,
        tenant_id uuid NOT NULL,
        address text NOT NULL,
        to_ text NOT NULL,
        locale text,
        variables jsonb NOT NULL DEFAULT '{}',
        CONSTRAINT pk_bulk_recipients PRIMARY KEY (bulk_id, seq),
        CONSTRAINT uq_bulk_recipients_address UNIQUE (bulk_id, address),
        CONSTRAINT fk_bulk_recipients_bulk_id_bulks FOREIGN KEY (bulk_id) REFERENCES bulks (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE templates (
        tenant_id uuid NOT NULL,
        key text NOT NULL,
        published integer,
        newest integer NOT NULL,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT pk_templates PRIMARY KEY (tenant_id, key)
    )
    """,
    """
    CREATE TABLE template_versions (
        tenant_id uuid NOT NULL,
        key text NOT NULL,
        version integer NOT NULL,
        default_locale text NOT NULL,
        contents jsonb NOT NULL,
        variables jsonb,
        needs jsonb NOT NULL,
        note text,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT pk_template_versions PRIMARY KEY (tenant_id, key, version),
        CONSTRAINT fk_template_versions_key_templates FOREIGN KEY (tenant_id, key)
            REFERENCES templates (tenant_id, key) ON DELETE CASCADE
    )
    """,
)

INDEXES = (
    "CREATE INDEX bulks_tenant_id ON bulks (tenant_id, id)",
    # A bulk serves each address once, and its mails are counted along this index.
    "CREATE UNIQUE INDEX emails_bulk_id ON emails (bulk_id, (recipients[1])) WHERE bulk_id IS NOT NULL",
)

# What was published stays as it was: a mail that was accepted with it will be the mail that was meant.
FROZEN = """
CREATE FUNCTION template_versions_frozen() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'version % of template % is written: make another one', OLD.version, OLD.key
        USING ERRCODE = 'check_violation', CONSTRAINT = 'template_versions_frozen';
END
$$
"""

FROZEN_TRIGGER = """
CREATE TRIGGER template_versions_frozen BEFORE UPDATE ON template_versions FOR EACH ROW
    EXECUTE FUNCTION template_versions_frozen()
"""


def upgrade() -> None:
    for statement in (COLUMNS, *TABLES, *INDEXES, FROZEN, FROZEN_TRIGGER):
        op.execute(statement)
    op.execute("COMMENT ON COLUMN emails.template_version IS 'of a template that the tenant wrote; null: built in'")
    op.execute("COMMENT ON COLUMN emails.resend_of IS 'the mail of which this one is another copy, asked for'")


def downgrade() -> None:
    op.execute("DROP TABLE template_versions")
    op.execute("DROP TABLE templates")
    op.execute("DROP TABLE bulk_recipients")
    op.execute("DROP TABLE bulks")
    op.execute("DROP FUNCTION template_versions_frozen()")
    op.execute("DROP INDEX emails_bulk_id")
    op.execute("ALTER TABLE emails DROP COLUMN template_version, DROP COLUMN bulk_id, DROP COLUMN resend_of")
