"""What could not be completed is told too: `notification.failed` and `.canceled`; the ends of bulks.

Revision ID: 20261122_endings
Revises: 20261122_letters
"""

from alembic import op

from service.db.row_security import as_worker

revision = "20261122_endings"
down_revision = "20261122_letters"
branch_labels = None
depends_on = None

COLUMNS = (
    "ALTER TABLE bulks ADD COLUMN ended_at timestamptz",
    "COMMENT ON COLUMN bulks.ended_at IS 'when it was seen first that nothing of it waits any more'",
)
# What ended before there was such an event is not told now.
ENDED = """
UPDATE bulks b SET ended_at = clock_timestamp() WHERE status <> 'open' AND total = expanded
    AND (scheduled_at IS NULL OR scheduled_at <= clock_timestamp())
    AND NOT EXISTS (SELECT FROM messages m WHERE m.gate = 'bulk:' || b.id AND NOT m.admitted AND m.state = 'queued')
    AND NOT EXISTS (
        SELECT FROM messages m WHERE m.gate = 'bulk:' || b.id AND m.admitted AND m.state IN ('queued', 'running'))
"""
INDEX = "CREATE INDEX bulks_running ON bulks (id) WHERE ended_at IS NULL AND status = 'running'"

ERROR = """
CREATE FUNCTION webhooks_error(m messages) RETURNS jsonb STABLE LANGUAGE sql AS $$
    SELECT CASE WHEN m.error IS NOT NULL THEN jsonb_build_object(
        'code', coalesce(
            CASE WHEN m.error ->> 'type' IN ('Retry', 'Dead', 'Uncertain') THEN m.outcome ->> 'reason' END,
            m.error ->> 'type', 'error'),
        'detail', coalesce(m.error ->> 'message', m.error ->> 'reason', ''))
    END
$$
"""

NOTIFICATION = """
CREATE FUNCTION webhooks_notification(n notifications, word text, error jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM webhook_endpoints WHERE enabled AND tenant_id = n.tenant_id) THEN
        PERFORM webhooks_emit(
            ARRAY[n.tenant_id], ARRAY[n.mode], ARRAY['notification.' || word], ARRAY[n.request_id],
            ARRAY[jsonb_build_object(
                'id', 'no_' || replace(n.id::text, '-', ''), 'task_id', n.id, 'request_id', n.request_id,
                'type', n.type, 'status', word, 'mode', n.mode, 'category', n.category,
                'actor', n.actor, 'data', n.data, 'channels', n.channels, 'dedup_key', n.dedup_key,
                'counts', jsonb_build_object(
                    'resolved', n.resolved, 'overlapping', n.overlapping, 'excluded', n.excluded,
                    'deduplicated', n.deduplicated, 'channels', jsonb_build_object(
                        'inbox', jsonb_build_object('delivered', n.inbox_delivered, 'muted', n.inbox_muted),
                        'email', jsonb_build_object(
                            'queued', n.email_queued, 'collected', n.email_collected, 'muted', n.email_muted,
                            'suppressed', n.email_suppressed, 'unreachable', n.email_unreachable,
                            'disabled', n.email_disabled))),
                'created_at', webhooks_moment(n.created_at), 'finished_at', webhooks_moment(n.finished_at),
                'error', error)]);
    END IF;
END
$$
"""

# Counted where somebody listens only: a bulk may have a million mails.
BULK = """
CREATE FUNCTION webhooks_bulk(b bulks, word text, error jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    counts jsonb;
BEGIN
    IF EXISTS (SELECT FROM webhook_endpoints WHERE enabled AND tenant_id = b.tenant_id) THEN
        SELECT coalesce(jsonb_object_agg(found.status, found.mails), '{}') INTO counts
        FROM (SELECT status, count(*) AS mails FROM emails WHERE bulk_id = b.id GROUP BY status) AS found;
        PERFORM webhooks_emit(
            ARRAY[b.tenant_id], ARRAY[b.mode], ARRAY['bulk.' || word], ARRAY[b.request_id],
            ARRAY[jsonb_build_object(
                'id', 'bk_' || replace(b.id::text, '-', ''), 'task_id', b.id, 'request_id', b.request_id,
                'status', word, 'mode', b.mode, 'name', b.name, 'template', b.request #>> '{template,key}',
                'total', b.total, 'duplicates', b.duplicates, 'refused', b.refused, 'unwritten', b.total - b.expanded,
                'counts', counts, 'created_at', webhooks_moment(b.created_at), 'error', error)]);
    END IF;
END
$$
"""

OF_NOTIFICATIONS = """
CREATE FUNCTION webhooks_of_served() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM webhooks_notification(NEW, 'completed', NULL);
    RETURN NULL;
END
$$
"""
OF_BULKS = """
CREATE FUNCTION webhooks_of_bulks() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM webhooks_bulk(NEW, CASE NEW.status WHEN 'canceled' THEN 'canceled' ELSE 'completed' END, NULL);
    RETURN NULL;
END
$$
"""
# Everybody a notification is for may have been served, and every mail of a bulk written, before the message died.
OF_FAN_OUTS = """
CREATE FUNCTION webhooks_of_fan_outs() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    n notifications;
    b bulks;
BEGIN
    IF NEW.actor = 'notifications.fan_out' THEN
        SELECT * INTO n FROM notifications WHERE id = NEW.id AND finished_at IS NULL;
        IF FOUND THEN
            PERFORM webhooks_notification(
                n, CASE NEW.state WHEN 'canceled' THEN 'canceled' ELSE 'failed' END, webhooks_error(NEW));
        END IF;
    ELSIF NEW.state <> 'canceled' THEN
        SELECT * INTO b FROM bulks WHERE id = NEW.id AND status <> 'canceled' AND expanded < total;
        IF FOUND THEN
            PERFORM webhooks_bulk(b, 'failed', webhooks_error(NEW));
        END IF;
    END IF;
    RETURN NULL;
END
$$
"""

COMPLETED = """
CREATE TRIGGER webhooks_of_notifications AFTER UPDATE OF finished_at ON notifications FOR EACH ROW
    WHEN (OLD.finished_at IS NULL AND NEW.finished_at IS NOT NULL)
    EXECUTE FUNCTION {function}()
"""
# A bulk has one end: to cancel one that has ended is harmless, and told to nobody.
BULKS = """
CREATE TRIGGER webhooks_of_bulks AFTER UPDATE OF status, ended_at ON bulks FOR EACH ROW
    WHEN (OLD.ended_at IS NULL
        AND (NEW.ended_at IS NOT NULL OR (NEW.status = 'canceled' AND OLD.status <> 'canceled')))
    EXECUTE FUNCTION webhooks_of_bulks()
"""
FAN_OUTS = """
CREATE TRIGGER webhooks_of_fan_outs AFTER UPDATE ON messages FOR EACH ROW
    WHEN (NEW.state IN ('dead', 'canceled', 'expired', 'uncertain') AND NEW.state <> OLD.state
        AND NEW.actor IN ('notifications.fan_out', 'emails.expand_bulk'))
    EXECUTE FUNCTION webhooks_of_fan_outs()
"""
NO_COMPLETED = "DROP TRIGGER webhooks_of_notifications ON notifications"

# By their ends, which nothing asks for. It cannot wait for a later version: beside `messages_letters` Postgres takes it
# for the letters of one tenant, and reads those of all.
DEAD = "CREATE INDEX messages_dead ON messages (finished_at) WHERE state IN ('dead', 'uncertain', 'held')"


def upgrade() -> None:
    for statement in COLUMNS:
        op.execute(statement)
    as_worker(ENDED)
    for statement in (INDEX, ERROR, NOTIFICATION, BULK, OF_NOTIFICATIONS, OF_BULKS, OF_FAN_OUTS):
        op.execute(statement)
    op.execute(NO_COMPLETED)
    for trigger in (COMPLETED.format(function="webhooks_of_served"), BULKS, FAN_OUTS):
        op.execute(trigger)
    op.execute("DROP INDEX messages_dead")  # last, for it keeps readers of `messages` out until the transaction ends


def downgrade() -> None:
    op.execute(DEAD)
    op.execute("DROP TRIGGER webhooks_of_fan_outs ON messages")
    op.execute("DROP TRIGGER webhooks_of_bulks ON bulks")
    op.execute(NO_COMPLETED)
    op.execute(COMPLETED.format(function="webhooks_of_notifications"))
    for function in (
        "webhooks_of_fan_outs()",
        "webhooks_of_bulks()",
        "webhooks_of_served()",
        "webhooks_bulk(bulks, text, jsonb)",
        "webhooks_notification(notifications, text, jsonb)",
        "webhooks_error(messages)",
    ):
        op.execute(f"DROP FUNCTION {function}")
    op.execute("DROP INDEX bulks_running")
    op.execute("ALTER TABLE bulks DROP COLUMN ended_at")
