"""What the notifications slice does: delivers notifications, mails digests, forgets what is old.

And the names by which Celery clients knew it.
"""

from sqlalchemy import text

from callboard_workers.actors.actor import actor
from callboard_workers.cron import Cron
from callboard_workers.runtime import Runtime
from service.db.retention import forget, oldest
from service.notifications import digest
from service.notifications.compatibility import (
    broadcast_notification,
    process_queue,
    send_bulk_notifications,
    send_email,
    send_notification,
)
from service.notifications.deliver import engine_of, fan_out
from service.notifications.models import QUEUE

__all__ = [
    "broadcast_notification",
    "fan_out",
    "forget_notifications",
    "process_queue",
    "send_bulk_notifications",
    "send_digests",
    "send_email",
    "send_notification",
]

OVER = text("""
DELETE FROM notification_keys WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM notification_keys WHERE until < statement_timestamp() LIMIT :batch
    FOR UPDATE SKIP LOCKED))
""")
CLOSED = text("""
DELETE FROM digests WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM digests WHERE closed_at < statement_timestamp() - make_interval(secs => :retention)
    LIMIT :batch FOR UPDATE SKIP LOCKED))
""")
OLD = (
    text("""
DELETE FROM deliveries WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM deliveries WHERE notification_id < :before LIMIT :batch))
"""),
    text("""
DELETE FROM notification_keys WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM notification_keys WHERE notification_id < :before LIMIT :batch))
"""),
    text("""
DELETE FROM notifications WHERE id = ANY (ARRAY(
    SELECT n.id FROM notifications n LEFT JOIN messages m ON m.id = n.id
    WHERE n.id < :before AND (m.state IS NULL OR m.state NOT IN ('queued', 'running')) ORDER BY n.id LIMIT :batch))
"""),
)


@actor(name="notifications.send_digests", queue=QUEUE, cron=Cron("* * * * *"), time_limit=300)
async def send_digests() -> None:
    """Mail every digest whose period is over, each once, some at a time."""
    runtime = Runtime.of_loop()
    while (sent := await digest.send_some(runtime, engine_of(runtime))) is not None:
        runtime.ring(sent)


@actor(name="notifications.forget", queue=QUEUE, cron=Cron("3-59/10 * * * *"), time_limit=3600)
async def forget_notifications() -> None:
    """Delete notifications and their deliveries, digests and keys once they are older than RECORD_RETENTION."""
    retention: float = Runtime.of_loop().state["settings"].record_retention
    await forget(OVER)
    if retention:
        before = await oldest(retention)
        for statement in OLD:
            await forget(statement, before=before)
        await forget(CLOSED, retention=retention)
