"""Webhooks: endpoints, events and deliveries; events are written by triggers, in the transaction of the change itself.

A statement-level trigger looks at a whole batch of settled mails or jobs at once. Where nobody has an endpoint that is
one look at an empty index; where somebody has, the events, their deliveries and the ledger's rows are one statement.

Revision ID: 20261122_webhooks
Revises: 20261122_notifications
"""

from alembic import op

revision = "20261122_webhooks"
down_revision = "20261122_notifications"
branch_labels = None
depends_on = None

TABLES = (
    """
    CREATE TABLE webhook_endpoints (
        id uuid NOT NULL,
        tenant_id uuid NOT NULL,
        mode text NOT NULL,
        url text NOT NULL,
        description text NOT NULL DEFAULT '',
        events text[] NOT NULL DEFAULT '{*}',
        enabled boolean NOT NULL DEFAULT true,
        disabled_reason text,
        secret bytea NOT NULL,
        previous_secret bytea,
        previous_until timestamptz,
        failures integer NOT NULL DEFAULT 0,
        failing_since timestamptz,
        resting_until timestamptz,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT pk_webhook_endpoints PRIMARY KEY (id),
        CONSTRAINT uq_webhook_endpoints_tenant_id UNIQUE (tenant_id, mode, url),
        CONSTRAINT ck_webhook_endpoints_mode CHECK (mode IN ('live', 'test'))
    ) WITH (fillfactor = 70)
    """,
    "CREATE INDEX webhook_endpoints_enabled ON webhook_endpoints (tenant_id) WHERE enabled",
    """
    CREATE TABLE webhook_events (
        id uuid NOT NULL,
        tenant_id uuid NOT NULL,
        mode text NOT NULL,
        type text NOT NULL,
        request_id text,
        data jsonb NOT NULL,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT pk_webhook_events PRIMARY KEY (id)
    )
    """,
    """
    CREATE TABLE webhook_deliveries (
        id uuid NOT NULL,
        tenant_id uuid NOT NULL,
        endpoint_id uuid NOT NULL,
        event_id uuid NOT NULL,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT pk_webhook_deliveries PRIMARY KEY (id)
    )
    """,
    "CREATE INDEX webhook_deliveries_endpoint_id ON webhook_deliveries (endpoint_id, id)",
    "CREATE INDEX webhook_deliveries_event_id ON webhook_deliveries (event_id)",
    "COMMENT ON COLUMN webhook_endpoints.secret IS 'sealed'",
    "COMMENT ON COLUMN webhook_endpoints.previous_secret IS 'sealed; signs as well until previous_until'",
    "COMMENT ON COLUMN webhook_deliveries.id IS 'also the id of its message in the ledger, where its state is'",
    "ALTER TABLE jobs ADD COLUMN webhook_id uuid",
    "COMMENT ON COLUMN jobs.webhook_id IS 'an endpoint that is told of this job''s end, whatever it subscribed to'",
)

NEW_ID = """
CREATE FUNCTION webhooks_new_id() RETURNS uuid LANGUAGE sql VOLATILE AS $$
    -- a UUIDv7 of now
    SELECT encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
        PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6),
        52, 1), 53, 1), 'hex')::uuid
$$
"""

MOMENT = """
CREATE FUNCTION webhooks_moment(moment timestamptz) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$
"""

# The gate is that of the actor: at most so many deliveries to one endpoint at a time, in all workers together.
EMIT = """
CREATE FUNCTION webhooks_emit(tenants uuid[], modes text[], types text[], request_ids text[], data jsonb[],
    endpoints uuid[] DEFAULT NULL) RETURNS void LANGUAGE sql VOLATILE AS $$
    WITH item AS MATERIALIZED (
        SELECT i.*, webhooks_new_id() AS event_id
        FROM unnest(tenants, modes, types, request_ids, data, endpoints)
            AS i(tenant_id, mode, type, request_id, data, also)
    ),
    target AS MATERIALIZED (
        SELECT i.*, e.id AS endpoint_id, webhooks_new_id() AS delivery_id
        FROM item i JOIN webhook_endpoints e ON e.tenant_id = i.tenant_id AND e.mode = i.mode
        WHERE e.enabled AND ('*' = ANY(e.events) OR i.type = ANY(e.events) OR e.id = i.also)
    ),
    happened AS (
        INSERT INTO webhook_events (id, tenant_id, mode, type, request_id, data)
        SELECT DISTINCT ON (event_id) event_id, tenant_id, mode, type, request_id, data FROM target
    ),
    planned AS (
        INSERT INTO webhook_deliveries (id, tenant_id, endpoint_id, event_id)
        SELECT delivery_id, tenant_id, endpoint_id, event_id FROM target
    )
    INSERT INTO messages (id, tenant_id, actor, queue, priority, args, headers, request_id, ring_at, gate, slots)
    SELECT delivery_id, tenant_id, 'webhooks.deliver', 'webhooks', 6,
        jsonb_build_array(jsonb_build_array(delivery_id, endpoint_id), '{}'::jsonb),
        jsonb_strip_nulls(jsonb_build_object('tenant_id', tenant_id, 'request_id', request_id)),
        request_id, 'infinity', 'webhooks.deliver:' || endpoint_id, 10
    FROM target
$$
"""

# Which rows changed is told by EXCEPT, because a join of two transition tables is planned once for a session, maybe for
# a single row; what else an event tells is looked up by key, with the settings that the mirrors use as well.
EMAILS = """
CREATE FUNCTION webhooks_of_emails() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM webhook_endpoints WHERE enabled) THEN
        RETURN NULL;
    END IF;
    PERFORM webhooks_emit(
        array_agg(e.tenant_id), array_agg(e.mode), array_agg('email.' || e.status), array_agg(e.request_id),
        array_agg(jsonb_build_object(
            'id', 'em_' || replace(e.id::text, '-', ''), 'task_id', e.id, 'request_id', e.request_id,
            'status', e.status, 'mode', e.mode, 'from', e.sender, 'to', e.to_, 'cc', e.cc, 'bcc', e.bcc,
            'subject', e.subject, 'template', e.template_key, 'category', e.category, 'tags', e.tags,
            'metadata', e.metadata, 'message_id', e.message_id, 'created_at', webhooks_moment(e.created_at),
            'updated_at', webhooks_moment(e.updated_at),
            'error', CASE WHEN e.status NOT IN ('sent', 'delivered') AND m.error IS NOT NULL THEN
                jsonb_build_object(
                    'code', coalesce(
                        CASE WHEN m.error ->> 'type' IN ('Retry', 'Dead', 'Uncertain') THEN m.outcome ->> 'reason' END,
                        m.error ->> 'type', 'error'),
                    'detail', coalesce(m.error ->> 'message', m.error ->> 'reason', ''))
            END)))
    FROM (
        SELECT id, status FROM new_rows WHERE status NOT IN ('queued', 'sending')
        EXCEPT SELECT id, status FROM old_rows
    ) AS changed
    JOIN emails e ON e.id = changed.id
    LEFT JOIN messages m ON m.id = changed.id
    WHERE EXISTS (SELECT FROM webhook_endpoints w WHERE w.enabled AND w.tenant_id = e.tenant_id)
    HAVING count(*) > 0;
    RETURN NULL;
END
$$
"""

JOBS = """
CREATE FUNCTION webhooks_of_jobs() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM webhook_endpoints WHERE enabled) THEN
        RETURN NULL;
    END IF;
    PERFORM webhooks_emit(
        array_agg(j.tenant_id), array_agg(j.mode), array_agg('job.' || j.status), array_agg(j.request_id),
        array_agg(jsonb_build_object(
            'id', 'jb_' || replace(j.id::text, '-', ''), 'task_id', j.id, 'request_id', j.request_id,
            'type', j.type, 'status', j.status, 'mode', j.mode, 'organization_id', j.organization_id,
            'result', j.result, 'created_at', webhooks_moment(j.created_at),
            'finished_at', webhooks_moment(j.finished_at),
            'error', CASE WHEN j.status <> 'completed' AND m.error IS NOT NULL THEN
                jsonb_build_object(
                    'code', coalesce(
                        CASE WHEN m.error ->> 'type' IN ('Retry', 'Dead', 'Uncertain') THEN m.outcome ->> 'reason' END,
                        m.error ->> 'type', 'error'),
                    'detail', coalesce(m.error ->> 'message', m.error ->> 'reason', ''))
            END)),
        array_agg(j.webhook_id))
    FROM (
        SELECT id, status FROM new_rows WHERE status NOT IN ('pending', 'processing')
        EXCEPT SELECT id, status FROM old_rows
    ) AS changed
    JOIN jobs j ON j.id = changed.id
    LEFT JOIN messages m ON m.id = changed.id
    WHERE EXISTS (SELECT FROM webhook_endpoints w WHERE w.enabled AND w.tenant_id = j.tenant_id)
    HAVING count(*) > 0;
    RETURN NULL;
END
$$
"""

TRIGGERS = tuple(
    f"CREATE TRIGGER webhooks_of_{table} AFTER UPDATE ON {table}"
    " REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows"
    f" FOR EACH STATEMENT EXECUTE FUNCTION webhooks_of_{table}()"
    for table in ("emails", "jobs")
)


def upgrade() -> None:
    for statement in (*TABLES, NEW_ID, MOMENT, EMIT, EMAILS, JOBS, *TRIGGERS):
        op.execute(statement)


def downgrade() -> None:
    for table in ("emails", "jobs"):
        op.execute(f"DROP TRIGGER webhooks_of_{table} ON {table}")
        op.execute(f"DROP FUNCTION webhooks_of_{table}()")
    op.execute("DROP FUNCTION webhooks_emit(uuid[], text[], text[], text[], jsonb[], uuid[])")
    op.execute("DROP FUNCTION webhooks_moment(timestamptz)")
    op.execute("DROP FUNCTION webhooks_new_id()")
    op.execute("ALTER TABLE jobs DROP COLUMN webhook_id")
    for table in ("webhook_deliveries", "webhook_events", "webhook_endpoints"):
        op.execute(f"DROP TABLE {table}")
