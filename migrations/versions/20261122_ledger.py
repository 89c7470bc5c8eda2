"""The ledger: durable messages, their attempts, and the database's own guard over their states."""

from __future__ import annotations

from alembic import op

revision = "20261122_ledger"
down_revision = None
branch_labels = None
depends_on = None

TABLES = (
    """
    CREATE TABLE messages (
        id uuid PRIMARY KEY,
        tenant_id uuid,
        actor text NOT NULL,
        queue text NOT NULL,
        priority smallint NOT NULL,
        args jsonb NOT NULL,
        headers jsonb NOT NULL DEFAULT '{}',
        request_id text,
        key text,
        state text NOT NULL DEFAULT 'queued'
            CONSTRAINT messages_state CHECK (state IN
                ('queued', 'running', 'done', 'dead', 'canceled', 'expired', 'uncertain', 'held')),
        intent boolean NOT NULL DEFAULT false,
        epoch integer NOT NULL DEFAULT 0,
        attempts integer NOT NULL DEFAULT 0,
        crashes integer NOT NULL DEFAULT 0,
        snoozes integer NOT NULL DEFAULT 0,
        max_crashes smallint NOT NULL DEFAULT 3,
        uncertain_policy text NOT NULL DEFAULT 'hold'
            CONSTRAINT messages_uncertain_policy CHECK (uncertain_policy IN ('hold', 'resend')),
        due_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        ring_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        rings integer NOT NULL DEFAULT 0,
        expires_at timestamptz,
        lease_until timestamptz,
        worker text,
        cancel_requested boolean NOT NULL DEFAULT false,
        error jsonb,
        outcome jsonb,
        result jsonb,
        progress jsonb,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        started_at timestamptz,
        finished_at timestamptz,
        CONSTRAINT messages_lease CHECK (state <> 'running' OR (lease_until IS NOT NULL AND worker IS NOT NULL))
    ) WITH (fillfactor = 70)
    """,
    # No index on lease_until: it would turn every renewal into an index write (no HOT updates).
    "CREATE INDEX messages_ring ON messages (ring_at) WHERE state = 'queued'",
    "CREATE INDEX messages_running ON messages (id) WHERE state = 'running'",
    "CREATE INDEX messages_expiry ON messages (expires_at) WHERE state = 'queued' AND expires_at IS NOT NULL",
    "CREATE INDEX messages_resend ON messages (finished_at) WHERE state = 'uncertain' AND uncertain_policy = 'resend'",
    "CREATE INDEX messages_dead ON messages (finished_at) WHERE state IN ('dead', 'uncertain', 'held')",
    "CREATE INDEX messages_request ON messages (request_id) WHERE request_id IS NOT NULL",
    """
    CREATE UNIQUE INDEX messages_key ON messages (tenant_id, actor, key) NULLS NOT DISTINCT
        WHERE key IS NOT NULL AND state IN ('queued', 'running', 'uncertain', 'held')
    """,
    """
    CREATE TABLE message_attempts (
        message_id uuid NOT NULL,
        epoch integer NOT NULL,
        outcome text NOT NULL,
        started_at timestamptz,
        ended_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        worker text,
        detail jsonb,
        PRIMARY KEY (message_id, epoch)
    )
    """,
)

GUARD = """
CREATE FUNCTION messages_guard() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    allowed boolean := CASE OLD.state
        WHEN 'queued' THEN NEW.state IN ('queued', 'running', 'canceled', 'expired', 'dead')
        WHEN 'running' THEN NEW.state IN ('running', 'queued', 'done', 'dead', 'canceled', 'expired', 'uncertain')
        WHEN 'uncertain' THEN NEW.state IN ('uncertain', 'done', 'queued', 'held', 'dead')
        WHEN 'held' THEN NEW.state IN ('held', 'queued', 'done')
        WHEN 'dead' THEN NEW.state IN ('dead', 'queued', 'done')
        ELSE false
    END;
BEGIN
    IF NOT allowed THEN
        RAISE EXCEPTION 'message % may not go from % to %', OLD.id, OLD.state, NEW.state
            USING ERRCODE = 'check_violation', CONSTRAINT = 'messages_guard';
    END IF;
    IF NEW.epoch < OLD.epoch OR (OLD.state = 'queued' AND NEW.state = 'running' AND NEW.epoch <> OLD.epoch + 1) THEN
        RAISE EXCEPTION 'message %: epoch may not go from % to %', OLD.id, OLD.epoch, NEW.epoch
            USING ERRCODE = 'check_violation', CONSTRAINT = 'messages_guard';
    END IF;
    IF NEW.intent AND NOT OLD.intent AND NOT (OLD.state = 'running' AND NEW.state = 'running') THEN
        RAISE EXCEPTION 'message %: only a running attempt may announce intent', OLD.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'messages_guard';
    END IF;
    -- Past the point of no return only an answer that leaves no doubt may make the message run again or give it up.
    IF OLD.state = 'running' AND OLD.intent
        AND (NEW.state IN ('queued', 'dead', 'canceled', 'expired') OR (NEW.state = 'running' AND NOT NEW.intent))
        AND NEW.error ->> 'definite' IS DISTINCT FROM 'true' THEN
        RAISE EXCEPTION 'message %: intent stands and no definite answer is noted, so it may not go to %', OLD.id, NEW.state
            USING ERRCODE = 'check_violation', CONSTRAINT = 'messages_guard';
    END IF;
    RETURN NEW;
END
$$
"""

TRIGGER = """
CREATE TRIGGER messages_guard BEFORE UPDATE ON messages FOR EACH ROW
    WHEN (OLD.state IS DISTINCT FROM NEW.state OR OLD.epoch IS DISTINCT FROM NEW.epoch
        OR OLD.intent IS DISTINCT FROM NEW.intent OR OLD.state IN ('done', 'canceled', 'expired'))
    EXECUTE FUNCTION messages_guard()
"""


def upgrade() -> None:
    for statement in (*TABLES, GUARD, TRIGGER):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE message_attempts")
    op.execute("DROP TABLE messages")
    op.execute("DROP FUNCTION messages_guard()")
