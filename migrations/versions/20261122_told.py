"""`notification.completed` is told; a mail's dedup_key may end.

Revision ID: 20261122_told
Revises: 20261122_tenancy
"""

from alembic import op

revision = "20261122_told"
down_revision = "20261122_tenancy"
branch_labels = None
depends_on = None

# A row of this table changes once for each chunk of thousands of people, and this runs for the last one only.
NOTIFICATIONS = """
CREATE FUNCTION webhooks_of_notifications() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM webhook_endpoints WHERE enabled AND tenant_id = NEW.tenant_id) THEN
        PERFORM webhooks_emit(
            ARRAY[NEW.tenant_id], ARRAY[NEW.mode], ARRAY['notification.completed'], ARRAY[NEW.request_id],
            ARRAY[jsonb_build_object(
                'id', 'no_' || replace(NEW.id::text, '-', ''), 'task_id', NEW.id, 'request_id', NEW.request_id,
                'type', NEW.type, 'status', 'completed', 'mode', NEW.mode, 'category', NEW.category,
                'actor', NEW.actor, 'data', NEW.data, 'channels', NEW.channels, 'dedup_key', NEW.dedup_key,
                'counts', jsonb_build_object(
                    'resolved', NEW.resolved, 'overlapping', NEW.overlapping, 'excluded', NEW.excluded,
                    'deduplicated', NEW.deduplicated, 'channels', jsonb_build_object(
                        'inbox', jsonb_build_object(
                            'delivered', NEW.inbox_delivered, 'muted', NEW.inbox_muted),
                        'email', jsonb_build_object(
                            'queued', NEW.email_queued, 'collected', NEW.email_collected, 'muted', NEW.email_muted,
                            'suppressed', NEW.email_suppressed, 'unreachable', NEW.email_unreachable,
                            'disabled', NEW.email_disabled))),
                'created_at', webhooks_moment(NEW.created_at), 'finished_at', webhooks_moment(NEW.finished_at))]);
    END IF;
    RETURN NULL;
END
$$
"""
TRIGGER = """
CREATE TRIGGER webhooks_of_notifications AFTER UPDATE OF finished_at ON notifications FOR EACH ROW
    WHEN (OLD.finished_at IS NULL AND NEW.finished_at IS NOT NULL)
    EXECUTE FUNCTION webhooks_of_notifications()
"""
WINDOW = (
    "ALTER TABLE emails ADD COLUMN dedup_until timestamptz",
    "COMMENT ON COLUMN emails.dedup_until IS 'from when on another mail may take the dedup_key; null: never'",
)


def upgrade() -> None:
    for statement in (NOTIFICATIONS, TRIGGER, *WINDOW):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TRIGGER webhooks_of_notifications ON notifications")
    op.execute("DROP FUNCTION webhooks_of_notifications()")
    op.execute("ALTER TABLE emails DROP COLUMN dedup_until")
