"""Evidence: what is held may turn out to have failed; mails are found by their request and by the mail they follow.

Revision ID: 20261122_evidence
Revises: 20261122_retention
"""

from alembic import op

revision = "20261122_evidence"
down_revision = "20261122_retention"
branch_labels = None
depends_on = None

GUARD = """
CREATE OR REPLACE FUNCTION messages_guard() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    allowed boolean := CASE OLD.state
        WHEN 'queued' THEN NEW.state IN ('queued', 'running', 'canceled', 'expired', 'dead')
        WHEN 'running' THEN NEW.state IN ('running', 'queued', 'done', 'dead', 'canceled', 'expired', 'uncertain')
        WHEN 'uncertain' THEN NEW.state IN ('uncertain', 'done', 'queued', 'held', 'dead')
        WHEN 'held' THEN NEW.state IN ('held', 'queued', 'done', 'dead')
        WHEN 'dead' THEN NEW.state IN ('dead', 'queued', 'done')
        ELSE false
    END;
BEGIN
    -- A result may be let go when its time is over, and nothing else of a finished row may change.
    IF OLD.state = 'done' AND OLD.result_until IS NOT NULL AND NEW.result IS NULL AND NEW.result_until IS NULL
        AND to_jsonb(NEW) - '{result,result_until}'::text[] = to_jsonb(OLD) - '{result,result_until}'::text[] THEN
        RETURN NEW;
    END IF;
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

# Ids of requests are random texts, asked for one by one: a hash index is the smallest, and the cheapest to fill.
INDEXES = (
    "CREATE INDEX emails_request ON emails USING hash (request_id) WHERE request_id IS NOT NULL",
    "CREATE INDEX emails_followups ON emails (message_id) WHERE follows IS NOT NULL",
)


def upgrade() -> None:
    op.execute(GUARD)
    for index in INDEXES:
        op.execute(index)


def downgrade() -> None:
    op.execute("DROP INDEX emails_followups")
    op.execute("DROP INDEX emails_request")
    op.execute(GUARD.replace("('held', 'queued', 'done', 'dead')", "('held', 'queued', 'done')"))
