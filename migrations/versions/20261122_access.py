"""Access: tenants, their API keys, and the answers kept for Idempotency-Keys.

Revision ID: 20261122_access
Revises: 20261122_ledger
"""

from __future__ import annotations

from alembic import op

revision = "20261122_access"
down_revision = "20261122_ledger"
branch_labels = None
depends_on = None

TABLES = (
    """
    CREATE TABLE tenants (
        id uuid NOT NULL,
        name text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT pk_tenants PRIMARY KEY (id),
        CONSTRAINT uq_tenants_name UNIQUE (name),
        CONSTRAINT ck_tenants_name CHECK (name <> '' AND length(name) <= 100)
    )
    """,
    """
    CREATE TABLE api_keys (
        id uuid NOT NULL,
        tenant_id uuid NOT NULL,
        name text NOT NULL DEFAULT '',
        prefix text NOT NULL,
        hash bytea NOT NULL,
        scopes text[] NOT NULL,
        mode text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        expires_at timestamptz,
        revoked_at timestamptz,
        last_used_at timestamptz,
        CONSTRAINT pk_api_keys PRIMARY KEY (id),
        CONSTRAINT fk_api_keys_tenant_id FOREIGN KEY (tenant_id) REFERENCES tenants (id),
        CONSTRAINT uq_api_keys_hash UNIQUE (hash),
        CONSTRAINT ck_api_keys_hash CHECK (octet_length(hash) = 32),
        CONSTRAINT ck_api_keys_mode CHECK (mode IN ('live', 'test'))
    )
    """,
    "CREATE INDEX ix_api_keys_tenant_id ON api_keys (tenant_id)",
    # No foreign key to tenants: it would cost every accepted request a lock on the tenant's row.
    # json, not jsonb: the first answer comes back byte for byte.
    """
    CREATE TABLE idempotency_keys (
        tenant_id uuid NOT NULL,
        key text NOT NULL,
        fingerprint bytea NOT NULL,
        status smallint NOT NULL,
        response json NOT NULL,
        headers json NOT NULL DEFAULT '{}',
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        expires_at timestamptz NOT NULL,
        CONSTRAINT pk_idempotency_keys PRIMARY KEY (tenant_id, key),
        CONSTRAINT ck_idempotency_keys_status CHECK (status BETWEEN 200 AND 499 AND status <> 429)
    )
    """,
    "CREATE INDEX ix_idempotency_keys_expires_at ON idempotency_keys (expires_at)",
)


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)


def downgrade() -> None:
    for table in ("idempotency_keys", "api_keys", "tenants"):
        op.execute(f"DROP TABLE {table}")
