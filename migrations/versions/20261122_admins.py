"""What a key with the scope `admin` is told of every tenant: that it is there, since when, and what waits for a person.

Revision ID: 20261122_admins
Revises: 20261122_told
"""

from alembic import op

from service.db.row_security import sees_all

revision = "20261122_admins"
down_revision = "20261122_told"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE FUNCTION access_tenants(asking uuid)
        RETURNS TABLE (id uuid, name text, created_at timestamptz, held bigint) STABLE LANGUAGE sql AS $$
            SELECT t.id, t.name, t.created_at, coalesce(h.held, 0)
            FROM tenants t
            LEFT JOIN (
                SELECT m.tenant_id, count(*) AS held FROM messages m
                WHERE m.state IN ('dead', 'uncertain', 'held') GROUP BY m.tenant_id
            ) h ON h.tenant_id = t.id
            WHERE EXISTS (
                SELECT FROM api_keys k WHERE k.id = asking AND 'admin' = ANY (k.scopes) AND k.revoked_at IS NULL
                    AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())
            )
        $$
    """)
    sees_all("access_tenants(uuid)")


def downgrade() -> None:
    op.execute("DROP FUNCTION access_tenants(uuid)")
