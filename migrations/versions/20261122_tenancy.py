"""Tenants kept apart by the database itself: forced row-level security under two roles.

The functions answer what the API has to know of everybody: whose key this is, how much waits in the queues.

Revision ID: 20261122_tenancy
Revises: 20261122_webhooks
"""

from alembic import op

from service.db.row_security import grant, isolate, isolate_below, make_roles, sees_all

revision = "20261122_tenancy"
down_revision = "20261122_webhooks"
branch_labels = None
depends_on = None

TABLES = (
    *("messages", "message_keys", "idempotency_keys", "api_keys"),
    *("emails", "bulks", "bulk_recipients", "templates", "template_versions"),
    *("suppressions", "email_events", "senders", "transports"),
    *("users", "members", "followers", "preferences"),
    *("notifications", "deliveries", "notification_keys", "digests"),
    *("webhook_endpoints", "webhook_events", "webhook_deliveries"),
    *("organizations", "quotas", "jobs"),
)
BELOW = ("message_attempts", "message_groups")

FUNCTIONS = {
    "access_find_key(bytea)": """
        CREATE FUNCTION access_find_key(wanted bytea)
        RETURNS TABLE (id uuid, tenant_id uuid, scopes text[], mode text) STABLE LANGUAGE sql AS $$
            SELECT k.id, k.tenant_id, k.scopes, k.mode FROM api_keys k
            WHERE k.hash = wanted AND k.revoked_at IS NULL
                AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())
        $$
    """,
    "ledger_depths()": """
        CREATE FUNCTION ledger_depths() RETURNS TABLE (
            queue text, priority smallint, due bigint, scheduled bigint, running bigint, oldest double precision
        ) STABLE LANGUAGE sql AS $$
            SELECT m.queue, m.priority, count(*) FILTER (WHERE m.due_at <= clock_timestamp()),
                count(*) FILTER (WHERE m.due_at > clock_timestamp()), 0::bigint,
                extract(epoch FROM clock_timestamp() - min(m.due_at))::double precision
            FROM messages m WHERE m.state = 'queued' GROUP BY m.queue, m.priority
            UNION ALL
            SELECT m.queue, m.priority, 0, 0, count(*), NULL
            FROM messages m WHERE m.state = 'running' GROUP BY m.queue, m.priority
        $$
    """,
    "ledger_arrived(uuid, uuid)": """
        CREATE FUNCTION ledger_arrived(since uuid, until uuid)
        RETURNS TABLE (queue text, priority smallint, arrived bigint) STABLE LANGUAGE sql AS $$
            SELECT m.queue, m.priority, count(*) FROM messages m WHERE m.id >= since AND m.id < until
            GROUP BY m.queue, m.priority
        $$
    """,
    "ledger_kept()": """
        CREATE FUNCTION ledger_kept() RETURNS TABLE (queue text, state text, held bigint) STABLE LANGUAGE sql AS $$
            SELECT m.queue, m.state, count(*) FROM messages m
            WHERE m.state IN ('dead', 'uncertain', 'held') GROUP BY m.queue, m.state
            UNION ALL
            SELECT m.queue, m.state, count(*) FROM messages m WHERE m.state = 'running' GROUP BY m.queue, m.state
        $$
    """,
}
# Who lets in what waits at a gate must count all that is inside.
GATES = ("messages_admit(text)", "messages_admit_all(bigint)")


def upgrade() -> None:
    make_roles()
    for table in TABLES:
        isolate(table)
    isolate("tenants", column="id")
    isolate_below("message_attempts", "EXISTS (SELECT FROM messages m WHERE m.id = message_attempts.message_id)")
    # a group is written before its members
    isolate_below(
        "message_groups", "EXISTS (SELECT FROM messages m WHERE m.id = ANY (message_groups.members))", insert="true"
    )
    grant("plans", "SELECT")
    grant("message_crons")
    grant("message_starts")
    grant("alembic_version", "SELECT", "SELECT")
    for name, statement in FUNCTIONS.items():
        op.execute(statement)
        sees_all(name)
    for name in GATES:
        sees_all(name)


def downgrade() -> None:
    """Leaves the roles: they belong to the server, and other databases may use them."""
    for name in GATES:
        op.execute(f"ALTER FUNCTION {name} OWNER TO CURRENT_USER")
        op.execute(f"ALTER FUNCTION {name} SECURITY INVOKER RESET search_path")
        op.execute(f"GRANT EXECUTE ON FUNCTION {name} TO PUBLIC")
    for name in FUNCTIONS:
        op.execute(f"DROP FUNCTION {name}")
    for table in (*TABLES, "tenants", *BELOW):
        op.execute(f"DROP POLICY tenant ON {table}")
        op.execute(f"DROP POLICY every_tenant ON {table}")
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
    op.execute("DROP FUNCTION app_tenants()")
