"""Audience: users, members of organizations, followers of topics, and how each wants to be told.

Revision ID: 20261122_audience
Revises: 20261122_evidence
"""

from alembic import op

revision = "20261122_audience"
down_revision = "20261122_evidence"
branch_labels = None
depends_on = None

TABLES = (
    """
    CREATE TABLE users (
        no bigint GENERATED ALWAYS AS IDENTITY,
        tenant_id uuid NOT NULL,
        mode text NOT NULL,
        id text NOT NULL,
        email text,
        address text,
        locale text,
        timezone text NOT NULL DEFAULT 'UTC',
        attributes jsonb NOT NULL DEFAULT '{}',
        last_seq bigint NOT NULL DEFAULT 0,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT pk_users PRIMARY KEY (no),
        CONSTRAINT uq_users_tenant_id UNIQUE (tenant_id, mode, id),
        CONSTRAINT ck_users_mode CHECK (mode IN ('live', 'test')),
        CONSTRAINT ck_users_email CHECK ((email IS NULL) = (address IS NULL))
    ) WITH (fillfactor = 80)
    """,
    """
    CREATE TABLE members (
        tenant_id uuid NOT NULL,
        mode text NOT NULL,
        organization_id text NOT NULL,
        user_no bigint NOT NULL,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT pk_members PRIMARY KEY (tenant_id, mode, organization_id, user_no),
        CONSTRAINT fk_members_user_no FOREIGN KEY (user_no) REFERENCES users (no) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE followers (
        tenant_id uuid NOT NULL,
        mode text NOT NULL,
        topic text NOT NULL,
        user_no bigint NOT NULL,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT pk_followers PRIMARY KEY (tenant_id, mode, topic, user_no),
        CONSTRAINT fk_followers_user_no FOREIGN KEY (user_no) REFERENCES users (no) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE preferences (
        user_no bigint NOT NULL,
        category text NOT NULL,
        channel text NOT NULL,
        tenant_id uuid NOT NULL,
        pace text NOT NULL,
        CONSTRAINT pk_preferences PRIMARY KEY (user_no, category, channel),
        CONSTRAINT fk_preferences_user_no FOREIGN KEY (user_no) REFERENCES users (no) ON DELETE CASCADE,
        CONSTRAINT ck_preferences_channel CHECK (channel IN ('inbox', 'email')),
        CONSTRAINT ck_preferences_pace CHECK (
            pace IN ('immediate', 'off') OR (channel = 'email' AND pace IN ('hourly', 'daily')))
    )
    """,
    "CREATE INDEX members_user_no ON members (user_no)",
    "CREATE INDEX followers_user_no ON followers (user_no)",
    "COMMENT ON COLUMN users.id IS 'the tenant''s own word'",
    "COMMENT ON COLUMN users.email IS 'with its display name, as emails.spelling writes it'",
    "COMMENT ON COLUMN users.address IS 'the addr-spec of email'",
    "COMMENT ON COLUMN users.last_seq IS 'the newest number of the feed'",
    "COMMENT ON COLUMN preferences.category IS '* for whatever has none of its own'",
)


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)


def downgrade() -> None:
    for table in ("preferences", "followers", "members", "users"):
        op.execute(f"DROP TABLE {table}")
