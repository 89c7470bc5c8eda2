"""What waits for a person is found by its tenant, and counted so far as a page says it.

Revision ID: 20261122_letters
Revises: 20261122_files
"""

from alembic import op

from service.db.row_security import sees_all

revision = "20261122_letters"
down_revision = "20261122_files"
branch_labels = None
depends_on = None

# In place of `messages_dead`, which goes at the end of the migrations: to drop an index keeps readers out from then on.
INDEX = "CREATE INDEX messages_letters ON messages (tenant_id, state, id) WHERE state IN ('dead', 'uncertain', 'held')"
ADMINS = """
CREATE FUNCTION access_administers(asking uuid) RETURNS boolean STABLE LANGUAGE sql AS $$
    SELECT EXISTS (
        SELECT FROM api_keys k WHERE k.id = asking AND 'admin' = ANY (k.scopes) AND k.revoked_at IS NULL
            AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())
    )
$$
"""
# The page is cut before anything is counted, and no count goes beyond `most`. The settings keep the plan, which is made
# for any tenant, from reading the whole table for one that has little. `access_tenants(uuid)` stays for the processes
# of the version before.
TENANTS = """
CREATE FUNCTION access_tenants(asking uuid, part text, above text, page int, most int)
RETURNS TABLE (id uuid, name text, created_at timestamptz, held bigint) STABLE LANGUAGE sql
SET enable_seqscan = off SET enable_bitmapscan = off AS $$
    SELECT t.id, t.name, t.created_at, (
        SELECT count(*) FROM (
            SELECT FROM messages m WHERE m.tenant_id = t.id AND m.state IN ('dead', 'uncertain', 'held') LIMIT most
        ) AS letters
    )
    FROM (
        SELECT * FROM tenants
        WHERE name > above AND strpos(lower(name), lower(part)) > 0
            AND (SELECT access_administers(asking))
        ORDER BY name LIMIT page
    ) AS t ORDER BY t.name
$$
"""
TENANT = """
CREATE FUNCTION access_tenant(asking uuid, wanted uuid) RETURNS boolean STABLE LANGUAGE sql AS $$
    SELECT access_administers(asking) AND EXISTS (SELECT FROM tenants WHERE id = wanted)
$$
"""
TOLD = ("access_tenants(uuid, text, text, int, int)", "access_tenant(uuid, uuid)", "access_administers(uuid)")


def upgrade() -> None:
    for statement in (INDEX, ADMINS, TENANTS, TENANT):
        op.execute(statement)
    for function in TOLD:
        sees_all(function)


def downgrade() -> None:
    for function in TOLD:
        op.execute(f"DROP FUNCTION {function}")
    op.execute("DROP INDEX messages_letters")
