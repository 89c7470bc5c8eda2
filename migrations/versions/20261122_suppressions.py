"""What becomes of a mail after it was sent, and who wants none; who may send, and by which server.

Revision ID: 20261122_suppressions
Revises: 20261122_volume
"""

from alembic import op

revision = "20261122_suppressions"
down_revision = "20261122_volume"
branch_labels = None
depends_on = None

EMAILS = (
    "ALTER TABLE emails ADD COLUMN unsubscribable boolean NOT NULL DEFAULT false, ADD COLUMN delivery text",
    "COMMENT ON COLUMN emails.unsubscribable IS 'whether its reader may say no'",
    "COMMENT ON COLUMN emails.delivery IS 'what was heard of it since it was sent'",
    "ALTER TABLE emails ADD CONSTRAINT ck_emails_delivery"
    " CHECK (delivery IN ('delivered', 'bounced', 'complained')) NOT VALID",
    "ALTER TABLE emails DROP CONSTRAINT ck_emails_status",
    "ALTER TABLE emails ADD CONSTRAINT ck_emails_status CHECK (status IN ('queued', 'sending', 'sent', 'failed',"
    " 'canceled', 'expired', 'uncertain', 'suppressed', 'delivered', 'bounced', 'complained')) NOT VALID",
    "ALTER TABLE emails VALIDATE CONSTRAINT ck_emails_status",
    "ALTER TABLE emails VALIDATE CONSTRAINT ck_emails_delivery",
)

TABLES = (
    """
    CREATE TABLE suppressions (
        id uuid NOT NULL,
        tenant_id uuid NOT NULL,
        mode text NOT NULL,
        address text NOT NULL,
        category text,
        reason text NOT NULL,
        note text,
        email_id uuid,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT pk_suppressions PRIMARY KEY (id),
        CONSTRAINT uq_suppressions_tenant_id UNIQUE NULLS NOT DISTINCT (tenant_id, mode, address, category),
        CONSTRAINT ck_suppressions_mode CHECK (mode IN ('live', 'test')),
        CONSTRAINT ck_suppressions_reason CHECK (reason IN ('hard_bounce', 'complaint', 'unsubscribe', 'manual'))
    )
    """,
    "CREATE INDEX suppressions_list ON suppressions (tenant_id, mode, id)",
    "COMMENT ON COLUMN suppressions.address IS 'addr-spec, its ASCII letters small'",
    "COMMENT ON COLUMN suppressions.category IS 'null: every mail, transactional as well'",
    "COMMENT ON COLUMN suppressions.email_id IS 'the mail that led to it'",
    """
    CREATE TABLE email_events (
        id uuid NOT NULL,
        tenant_id uuid NOT NULL,
        email_id uuid NOT NULL,
        key text NOT NULL,
        event text NOT NULL,
        address text,
        detail jsonb NOT NULL DEFAULT '{}',
        at timestamptz NOT NULL,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT pk_email_events PRIMARY KEY (id),
        CONSTRAINT uq_email_events_tenant_id UNIQUE (tenant_id, key),
        CONSTRAINT fk_email_events_email_id FOREIGN KEY (email_id) REFERENCES emails (id) ON DELETE CASCADE,
        CONSTRAINT ck_email_events_event CHECK (event IN
            ('delivered', 'bounced', 'delayed', 'complained', 'unsubscribed', 'resubscribed'))
    )
    """,
    "CREATE INDEX email_events_email_id ON email_events (email_id)",
    "CREATE INDEX email_events_bounced ON email_events (tenant_id, address, at) WHERE event = 'bounced'",
    "COMMENT ON COLUMN email_events.key IS 'what makes a report one that was told before'",
    """
    CREATE TABLE senders (
        id uuid NOT NULL,
        tenant_id uuid NOT NULL,
        domain text NOT NULL,
        token text NOT NULL,
        selector text NOT NULL,
        public_key text NOT NULL,
        private_key bytea NOT NULL,
        verified_at timestamptz,
        checked_at timestamptz,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT pk_senders PRIMARY KEY (id),
        CONSTRAINT uq_senders_tenant_id UNIQUE (tenant_id, domain)
    )
    """,
    "COMMENT ON COLUMN senders.private_key IS 'PKCS #8, sealed'",
    """
    CREATE TABLE transports (
        id uuid NOT NULL,
        tenant_id uuid NOT NULL,
        name text NOT NULL,
        host text NOT NULL,
        port integer NOT NULL,
        tls text NOT NULL,
        verify boolean NOT NULL DEFAULT true,
        username text,
        password bytea,
        domains text[] NOT NULL DEFAULT '{}',
        pool_size integer NOT NULL,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT pk_transports PRIMARY KEY (id),
        CONSTRAINT uq_transports_tenant_id UNIQUE (tenant_id, name),
        CONSTRAINT ck_transports_tls CHECK (tls IN ('none', 'starttls', 'tls')),
        CONSTRAINT ck_transports_port CHECK (port BETWEEN 1 AND 65535),
        CONSTRAINT ck_transports_pool_size CHECK (pool_size BETWEEN 1 AND 20)
    )
    """,
    "COMMENT ON COLUMN transports.password IS 'sealed'",
    "COMMENT ON COLUMN transports.domains IS 'senders whose mail it takes; empty: every sender''s'",
)

NAMES = ("transports", "senders", "email_events", "suppressions")

WHETHER = """
CREATE FUNCTION emails_suppressed(tenant uuid, mode text, address text, topic text) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM suppressions s
        WHERE s.tenant_id = $1 AND s.mode = $2 AND s.address = lower($3 COLLATE "C") COLLATE "default"
            AND (s.category IS NULL OR s.category = $4)
    )
$$
"""

MIRROR = """
CREATE OR REPLACE FUNCTION emails_mirror_messages() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    UPDATE emails
    SET status = CASE mirrored.status WHEN 'sent' THEN coalesce(emails.delivery, 'sent') ELSE mirrored.status END,
        updated_at = clock_timestamp()
    FROM (
        SELECT id, CASE state
            WHEN 'queued' THEN 'queued'
            WHEN 'running' THEN 'sending'
            WHEN 'done' THEN CASE WHEN outcome ->> 'status' = 'suppressed' THEN 'suppressed' ELSE 'sent' END
            WHEN 'dead' THEN 'failed'
            WHEN 'canceled' THEN 'canceled'
            WHEN 'expired' THEN 'expired'
            ELSE 'uncertain'
        END AS status
        FROM changed
        WHERE actor = 'emails.send_email'
    ) AS mirrored
    WHERE emails.id = mirrored.id
        AND emails.status <> CASE mirrored.status WHEN 'sent' THEN coalesce(emails.delivery, 'sent') ELSE mirrored.status END;
    RETURN NULL;
END
$$
"""

BEFORE = """
CREATE OR REPLACE FUNCTION emails_mirror_messages() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    UPDATE emails
    SET status = mirrored.status, updated_at = clock_timestamp()
    FROM (
        SELECT id, CASE state
            WHEN 'queued' THEN 'queued'
            WHEN 'running' THEN 'sending'
            WHEN 'done' THEN 'sent'
            WHEN 'dead' THEN 'failed'
            WHEN 'canceled' THEN 'canceled'
            WHEN 'expired' THEN 'expired'
            ELSE 'uncertain'
        END AS status
        FROM changed
        WHERE actor = 'emails.send_email'
    ) AS mirrored
    WHERE emails.id = mirrored.id AND emails.status <> mirrored.status;
    RETURN NULL;
END
$$
"""

TAKEN_BACK = (
    "UPDATE emails SET status = CASE status WHEN 'suppressed' THEN 'canceled' ELSE 'sent' END"
    " WHERE status IN ('suppressed', 'delivered', 'bounced', 'complained')",
    "ALTER TABLE emails DROP CONSTRAINT ck_emails_status",
    "ALTER TABLE emails ADD CONSTRAINT ck_emails_status CHECK (status IN ('queued', 'sending', 'sent', 'failed',"
    " 'canceled', 'expired', 'uncertain'))",
    "ALTER TABLE emails DROP COLUMN delivery, DROP COLUMN unsubscribable",
)


def upgrade() -> None:
    for statement in (*EMAILS, *TABLES, WHETHER, MIRROR):
        op.execute(statement)


def downgrade() -> None:
    op.execute(BEFORE)
    op.execute("DROP FUNCTION emails_suppressed(uuid, text, text, text)")
    for name in NAMES:
        op.execute(f"DROP TABLE {name}")
    for statement in TAKEN_BACK:
        op.execute(statement)
