"""What access does later: the answers kept for an Idempotency-Key go when its time is over."""

from sqlalchemy import text

from callboard_workers.actors.actor import actor
from callboard_workers.cron import Cron
from service.db.retention import forget

OVER = text("""
DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM idempotency_keys WHERE expires_at < statement_timestamp() ORDER BY expires_at LIMIT :batch
    FOR UPDATE SKIP LOCKED))
""")


SIGNED_OUT = text("""
DELETE FROM console_sessions WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM console_sessions WHERE until < statement_timestamp() LIMIT :batch FOR UPDATE SKIP LOCKED))
""")


@actor(name="access.forget", cron=Cron("*/5 * * * *"), time_limit=3600)
async def forget_answers() -> None:
    """Delete the stored answers of idempotency keys, and the sessions of the console, that have expired."""
    await forget(OVER)
    await forget(SIGNED_OUT)
