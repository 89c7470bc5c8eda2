"""Live and test data of a tenant under two ids, sessions of the console, and fewer rights for the API's role.

Rows that test keys stored move to the tenant's test id; rows whose mode is not known stay live. A tenant with a test
key gets a copy of its templates. Downgrading deletes what belongs to test mode.

Revision ID: 20261129_modes
Revises: 20261129_suspects
"""

# ruff: noqa: S608 (names come from this file)
from __future__ import annotations

from alembic import op
from sqlalchemy import text

from service.db.row_security import as_worker, grant, isolate, replace_seeing_all, sees_all
from service.db.tenancy import API, WORKER

revision = "20261129_modes"
down_revision = "20261129_suspects"
branch_labels = None
depends_on = None

# The version digit of a UUID (RFC 9562: 8 is free for applications) says the mode, so no statement joins `tenants`.
FUNCTIONS = (
    """
    CREATE FUNCTION app_is_test(tenant uuid) RETURNS boolean IMMUTABLE STRICT PARALLEL SAFE LANGUAGE sql
    RETURN get_byte(uuid_send(tenant), 6) >> 4 = 8
    """,
    """
    CREATE FUNCTION app_test_id(tenant uuid) RETURNS uuid IMMUTABLE STRICT PARALLEL SAFE LANGUAGE sql
    RETURN overlay(tenant::text PLACING '8' FROM 15 FOR 1)::uuid
    """,
)
TENANTS = (
    "ALTER TABLE tenants ADD COLUMN test_id uuid GENERATED ALWAYS AS (app_test_id(id)) STORED",
    "ALTER TABLE tenants ADD CONSTRAINT uq_tenants_test_id UNIQUE (test_id)",
    "ALTER TABLE tenants ADD CONSTRAINT ck_tenants_live CHECK (NOT app_is_test(id))",
)
WITH_MODE = (
    *("emails", "bulks", "suppressions", "users", "members", "followers", "digests"),
    *("notifications", "jobs", "webhook_endpoints", "webhook_events"),
)
"""Tables whose rows name their mode: it must be that of their tenant's id."""

CHILDREN = (
    ("bulk_recipients", "bulks", "p.id = c.bulk_id"),
    ("email_events", "emails", "p.id = c.email_id"),
    ("deliveries", "notifications", "p.id = c.notification_id"),
    ("preferences", "users", "p.no = c.user_no"),
    ("notification_keys", "users", "p.no = c.user_no"),
    ("webhook_deliveries", "webhook_endpoints", "p.id = c.endpoint_id"),
)
"""Tables whose rows are of their parent's mode."""

COPIES = (
    # a job refers to its organization, an email to its files, and both may be shared with live rows
    """
    INSERT INTO organizations (tenant_id, id, plan, trust_score, job_limit, created_at, updated_at)
    SELECT app_test_id(o.tenant_id), o.id, o.plan, o.trust_score, o.job_limit, o.created_at, o.updated_at
    FROM organizations o WHERE EXISTS (
        SELECT FROM jobs j WHERE j.mode = 'test' AND j.tenant_id = o.tenant_id AND j.organization_id = o.id)
    """,
    """
    INSERT INTO attachment_files (tenant_id, digest, data, used_at)
    SELECT app_test_id(f.tenant_id), f.digest, f.data, f.used_at FROM attachment_files f WHERE EXISTS (
        SELECT FROM emails e, jsonb_array_elements(e.attachments) AS a(file)
        WHERE e.mode = 'test' AND e.attachments <> '[]' AND e.tenant_id = f.tenant_id
            AND decode(a.file ->> 'digest', 'hex') = f.digest)
    """,
    """
    INSERT INTO templates (tenant_id, key, published, newest, created_at, updated_at)
    SELECT app_test_id(t.tenant_id), t.key, t.published, t.newest, t.created_at, t.updated_at FROM templates t
    WHERE EXISTS (SELECT FROM api_keys k WHERE k.tenant_id = t.tenant_id AND k.mode = 'test')
    """,
    """
    INSERT INTO template_versions (tenant_id, key, version, default_locale, contents, variables, needs, note, created_at)
    SELECT app_test_id(v.tenant_id), v.key, v.version, v.default_locale, v.contents, v.variables, v.needs, v.note,
        v.created_at
    FROM template_versions v
    WHERE EXISTS (SELECT FROM api_keys k WHERE k.tenant_id = v.tenant_id AND k.mode = 'test')
    """,
)
MESSAGES = """
UPDATE messages m SET tenant_id = app_test_id(m.tenant_id), headers = CASE WHEN m.headers ? 'tenant_id'
    THEN m.headers || jsonb_build_object('tenant_id', app_test_id(m.tenant_id)) ELSE m.headers END
WHERE m.id = ANY (ARRAY(
    SELECT id FROM emails WHERE mode = 'test' UNION ALL SELECT id FROM jobs WHERE mode = 'test'
    UNION ALL SELECT id FROM notifications WHERE mode = 'test' UNION ALL SELECT id FROM bulks WHERE mode = 'test'
    UNION ALL SELECT d.id FROM webhook_deliveries d JOIN webhook_endpoints e ON e.id = d.endpoint_id
        WHERE e.mode = 'test'))
"""
KEYS = """
UPDATE idempotency_keys SET tenant_id = app_test_id(tenant_id), key = substr(key, 6) WHERE key LIKE E'test\\n%'
"""
ANY_TEST = "SELECT EXISTS (SELECT FROM api_keys WHERE mode = 'test')"

FIND_KEY = """
CREATE OR REPLACE FUNCTION access_find_key(wanted bytea)
RETURNS TABLE (id uuid, tenant_id uuid, scopes text[], mode text) STABLE LANGUAGE sql AS $$
    SELECT k.id, {tenant}, k.scopes, k.mode FROM api_keys k
    WHERE k.hash = wanted AND k.revoked_at IS NULL
        AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())
$$
"""
ACTS_FOR = "CASE k.mode WHEN 'test' THEN app_test_id(k.tenant_id) ELSE k.tenant_id END"
TENANT = """
CREATE OR REPLACE FUNCTION access_tenant(asking uuid, wanted uuid) RETURNS boolean STABLE LANGUAGE sql AS $$
    SELECT access_administers(asking) AND EXISTS (SELECT FROM tenants WHERE {found})
$$
"""

SESSIONS = """
CREATE TABLE console_sessions (
    id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    key_id uuid NOT NULL,
    until timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT pk_console_sessions PRIMARY KEY (id),
    CONSTRAINT fk_console_sessions_key_id FOREIGN KEY (key_id) REFERENCES api_keys (id) ON DELETE CASCADE
)
"""
SEEING_ALL = {
    "access_key_is_good(uuid)": """
        CREATE FUNCTION access_key_is_good(asked uuid) RETURNS boolean STABLE LANGUAGE sql AS $$
            SELECT EXISTS (SELECT FROM api_keys k WHERE k.id = asked AND k.revoked_at IS NULL
                AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp()))
        $$
    """,
    # `acting` is the tenant's id or its test id; what the key may do there is the caller's to decide
    "access_session(uuid, uuid, uuid)": f"""
        CREATE FUNCTION access_session(session uuid, asking uuid, acting uuid)
        RETURNS TABLE (tenant_id uuid, scopes text[], name text) STABLE LANGUAGE sql AS $$
            SELECT {ACTS_FOR}, k.scopes, t.name
            FROM console_sessions s JOIN api_keys k ON k.id = s.key_id JOIN tenants t ON acting IN (t.id, t.test_id)
            WHERE s.id = session AND s.until > clock_timestamp() AND k.id = asking AND k.revoked_at IS NULL
                AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())
        $$
    """,
    "access_note_used(uuid[])": """
        CREATE FUNCTION access_note_used(seen uuid[]) RETURNS void VOLATILE LANGUAGE sql AS $$
            UPDATE api_keys SET last_used_at = clock_timestamp() WHERE id = ANY (ARRAY(
                SELECT id FROM api_keys WHERE id = ANY (seen) ORDER BY id FOR NO KEY UPDATE))
        $$
    """,
}


def upgrade() -> None:
    for statement in (*FUNCTIONS, *TENANTS):
        op.execute(statement)
    if _finds(ANY_TEST):
        _move()
    for table in WITH_MODE:
        name = f"ck_{table}_mode_of_tenant"
        op.execute(
            f"ALTER TABLE {table} ADD CONSTRAINT {name} CHECK ((mode = 'test') = app_is_test(tenant_id)) NOT VALID"
        )
        op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")
    op.execute(SESSIONS)
    isolate("console_sessions")
    for name, statement in SEEING_ALL.items():
        op.execute(statement)
        sees_all(name)
    replace_seeing_all("access_find_key(bytea)", FIND_KEY.format(tenant=ACTS_FOR))
    replace_seeing_all("access_tenant(uuid, uuid)", TENANT.format(found="wanted IN (id, test_id)"))
    for table in ("api_keys", "tenants"):
        op.execute(f"REVOKE INSERT, UPDATE, DELETE ON {table} FROM {API}")


def _move() -> None:
    """Move rows of test mode to the test id of their tenant."""
    for statement in COPIES:
        as_worker(statement)
    op.execute("ALTER TABLE messages DISABLE TRIGGER messages_guard")  # it lets no finished row change
    as_worker(MESSAGES)
    op.execute("ALTER TABLE messages ENABLE TRIGGER messages_guard")
    for child, parent, joined in CHILDREN:
        moved = f"UPDATE {child} c SET tenant_id = app_test_id(c.tenant_id) FROM {parent} p"
        as_worker(f"{moved} WHERE {joined} AND p.mode = 'test'")
    for table in WITH_MODE:
        as_worker(f"UPDATE {table} SET tenant_id = app_test_id(tenant_id) WHERE mode = 'test'")
    as_worker(KEYS)


def downgrade() -> None:
    for table in ("api_keys", "tenants"):
        grant(table, "INSERT, UPDATE, DELETE", "")
    replace_seeing_all("access_find_key(bytea)", FIND_KEY.format(tenant="k.tenant_id"))
    replace_seeing_all("access_tenant(uuid, uuid)", TENANT.format(found="id = wanted"))
    for name in SEEING_ALL:
        op.execute(f"DROP FUNCTION {name}")
    op.execute("DROP TABLE console_sessions")
    for table in WITH_MODE:
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT ck_{table}_mode_of_tenant")
    owned = (
        *(child for child, _, _ in CHILDREN),
        *WITH_MODE,
        *("quotas", "organizations", "template_versions", "templates", "senders", "transports", "attachment_files"),
        *("idempotency_keys", "message_keys", "messages"),
    )
    for table in owned:
        as_worker(f"DELETE FROM {table} WHERE app_is_test(tenant_id)")
    op.execute("ALTER TABLE tenants DROP CONSTRAINT ck_tenants_live")
    op.execute("ALTER TABLE tenants DROP COLUMN test_id")
    op.execute("DROP FUNCTION app_test_id(uuid)")
    op.execute("DROP FUNCTION app_is_test(uuid)")


def _finds(statement: str) -> bool:
    connection = op.get_bind()
    connection.execute(text(f"SET LOCAL ROLE {WORKER}"))
    found = bool(connection.execute(text(statement)).scalar_one())
    connection.execute(text("RESET ROLE"))
    return found
