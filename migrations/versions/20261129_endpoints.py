"""Let every process count the webhook endpoints of all tenants that fail every call, for the operational checks.

Revision ID: 20261129_endpoints
Revises: 20261122_endings
"""

from alembic import op

from service.db.row_security import sees_all

revision = "20261129_endpoints"
down_revision = "20261122_endings"
branch_labels = None
depends_on = None

FUNCTION = "webhook_endpoints_failing()"
CREATE = """
CREATE FUNCTION webhook_endpoints_failing() RETURNS TABLE (failing bigint, since timestamptz) STABLE LANGUAGE sql AS $$
    SELECT count(*), min(e.failing_since) FROM webhook_endpoints e WHERE e.enabled AND e.failures >= 3
$$
"""


def upgrade() -> None:
    op.execute(CREATE)
    sees_all(FUNCTION)


def downgrade() -> None:
    op.execute(f"DROP FUNCTION {FUNCTION}")
