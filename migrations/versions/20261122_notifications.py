"""Notifications: what is to be told, to whom it was delivered and how, what is collected for a digest.

Revision ID: 20261122_notifications
Revises: 20261122_suppressions
"""

from alembic import op

revision = "20261122_notifications"
down_revision = "20261122_suppressions"
branch_labels = None
depends_on = None

TABLES = (
    """
    CREATE TABLE notifications (
        id uuid NOT NULL,
        tenant_id uuid NOT NULL,
        mode text NOT NULL,
        type text NOT NULL,
        category text,
        actor text,
        data jsonb NOT NULL DEFAULT '{}',
        channels text[] NOT NULL,
        critical boolean NOT NULL DEFAULT false,
        users text[] NOT NULL DEFAULT '{}',
        topics text[] NOT NULL DEFAULT '{}',
        organization_id text,
        exclude text[] NOT NULL DEFAULT '{}',
        dedup_key text,
        dedup_window double precision,
        email jsonb,
        request_id text,
        after_no bigint NOT NULL DEFAULT 0,
        resolved bigint NOT NULL DEFAULT 0,
        overlapping bigint NOT NULL DEFAULT 0,
        excluded bigint NOT NULL DEFAULT 0,
        deduplicated bigint NOT NULL DEFAULT 0,
        inbox_delivered bigint NOT NULL DEFAULT 0,
        inbox_muted bigint NOT NULL DEFAULT 0,
        email_queued bigint NOT NULL DEFAULT 0,
        email_collected bigint NOT NULL DEFAULT 0,
        email_muted bigint NOT NULL DEFAULT 0,
        email_suppressed bigint NOT NULL DEFAULT 0,
        email_unreachable bigint NOT NULL DEFAULT 0,
        email_disabled bigint NOT NULL DEFAULT 0,
        finished_at timestamptz,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT pk_notifications PRIMARY KEY (id),
        CONSTRAINT ck_notifications_mode CHECK (mode IN ('live', 'test')),
        CONSTRAINT ck_notifications_channels CHECK (channels <@ ARRAY['inbox', 'email'] AND cardinality(channels) > 0),
        CONSTRAINT ck_notifications_dedup CHECK (dedup_window IS NULL OR dedup_key IS NOT NULL)
    ) WITH (fillfactor = 60, toast_tuple_target = 256)
    """,
    """
    CREATE TABLE deliveries (
        notification_id uuid NOT NULL,
        user_no bigint NOT NULL,
        channel text NOT NULL,
        tenant_id uuid NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        seq bigint,
        email_id uuid,
        pace text,
        seen_at timestamptz,
        read_at timestamptz,
        archived_at timestamptz,
        CONSTRAINT pk_deliveries PRIMARY KEY (notification_id, user_no, channel),
        CONSTRAINT ck_deliveries_channel CHECK (channel IN ('inbox', 'email'))
    ) WITH (fillfactor = 90)
    """,
    """
    CREATE TABLE notification_keys (
        user_no bigint NOT NULL,
        dedup_key text NOT NULL,
        tenant_id uuid NOT NULL,
        until timestamptz NOT NULL,
        notification_id uuid NOT NULL,
        CONSTRAINT pk_notification_keys PRIMARY KEY (user_no, dedup_key)
    )
    """,
    """
    CREATE TABLE digests (
        user_no bigint NOT NULL,
        pace text NOT NULL,
        due_at timestamptz NOT NULL,
        tenant_id uuid NOT NULL,
        mode text NOT NULL,
        items integer NOT NULL DEFAULT 1,
        email_id uuid,
        outcome text,
        closed_at timestamptz,
        CONSTRAINT pk_digests PRIMARY KEY (user_no, pace, due_at),
        CONSTRAINT ck_digests_pace CHECK (pace IN ('hourly', 'daily')),
        CONSTRAINT ck_digests_outcome CHECK (outcome IN ('mailed', 'empty', 'unreachable', 'suppressed', 'disabled'))
    ) WITH (fillfactor = 70)
    """,
)

# The feed's index also holds what has no number yet: its reader numbers that first. The index of what waits for a
# digest is empty but for those who asked for one.
INDEXES = (
    "CREATE INDEX notifications_tenant_id ON notifications (tenant_id, id)",
    "CREATE INDEX notifications_request_id ON notifications (request_id) WHERE request_id IS NOT NULL",
    "CREATE INDEX deliveries_feed ON deliveries (user_no, seq) WHERE channel = 'inbox'",
    "CREATE INDEX deliveries_collected ON deliveries (user_no, pace) WHERE channel = 'email' AND pace IS NOT NULL"
    " AND email_id IS NULL",
    "CREATE INDEX notification_keys_until ON notification_keys (until)",
    "CREATE UNIQUE INDEX digests_open ON digests (user_no, pace) WHERE closed_at IS NULL",
    "CREATE INDEX digests_due_at ON digests (due_at) WHERE closed_at IS NULL",
)

COMMENTS = {
    "notifications.after_no": "users up to this number were served; what is above is still to come",
    "notifications.email": "the content of its mail, as the route took it",
    "notifications.dedup_window": "seconds; null for as long as the key is kept",
    "deliveries.seq": "its number in the feed; null until somebody looks",
    "deliveries.pace": "it waits for the digest of this pace; with an email_id it is in that mail",
    "digests.due_at": "the end of the period that it collects",
}

FUNCTIONS = (
    # The millisecond of a UUIDv7 (RFC 9562, 5.7) is given, the rest is random.
    """
    CREATE FUNCTION uuid_at(moment timestamptz) RETURNS uuid LANGUAGE sql VOLATILE AS $$
        SELECT encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
            PLACING substring(int8send((extract(epoch FROM moment) * 1000)::bigint) FROM 3) FROM 1 FOR 6),
            52, 1), 53, 1), 'hex')::uuid
    $$
    """,
    # The end of the period that is running: a full hour, or eight in the morning where the user lives.
    """
    CREATE FUNCTION digest_due(pace text, zone text) RETURNS timestamptz LANGUAGE sql STABLE AS $$
        SELECT CASE pace
            WHEN 'hourly' THEN date_trunc('hour', statement_timestamp()) + interval '1 hour'
            ELSE (date_trunc('day', (statement_timestamp() AT TIME ZONE zone) - interval '8 hours')
                + interval '1 day 8 hours') AT TIME ZONE zone
        END
    $$
    """,
    # Numbers what a feed got since it was last looked at. The user's row is locked first, and a statement after a lock
    # sees all that was committed before it was granted: so numbers become visible in their order, and who has seen one
    # will never find a smaller one that is new.
    """
    CREATE FUNCTION feed_number(who bigint) RETURNS bigint LANGUAGE plpgsql AS $$
    DECLARE
        base bigint;
        fresh bigint;
    BEGIN
        IF NOT EXISTS (SELECT FROM deliveries WHERE user_no = who AND channel = 'inbox' AND seq IS NULL) THEN
            SELECT last_seq INTO base FROM users WHERE no = who;
            RETURN base;
        END IF;
        SELECT last_seq INTO base FROM users WHERE no = who FOR NO KEY UPDATE;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
        WITH numbered AS (
            SELECT notification_id, row_number() OVER (ORDER BY notification_id) AS place
            FROM deliveries WHERE user_no = who AND channel = 'inbox' AND seq IS NULL
        )
        UPDATE deliveries d SET seq = base + numbered.place
        FROM numbered
        WHERE d.notification_id = numbered.notification_id AND d.user_no = who AND d.channel = 'inbox';
        GET DIAGNOSTICS fresh = ROW_COUNT;
        UPDATE users SET last_seq = base + fresh WHERE no = who;
        RETURN base + fresh;
    END
    $$
    """,
)


def upgrade() -> None:
    for statement in (*TABLES, *INDEXES, *FUNCTIONS):
        op.execute(statement)
    for column, comment in COMMENTS.items():
        op.execute(f"COMMENT ON COLUMN {column} IS '{comment}'")


def downgrade() -> None:
    for function in ("feed_number(bigint)", "digest_due(text, text)", "uuid_at(timestamptz)"):
        op.execute(f"DROP FUNCTION {function}")
    for table in ("digests", "notification_keys", "deliveries", "notifications"):
        op.execute(f"DROP TABLE {table}")
