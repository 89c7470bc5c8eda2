"""What access does later: the answers kept for an Idempotency-Key go when its time is over."""

from sqlalchemy import text

from service.forgetting import forget
from workers.actor import actor
from workers.cron import Cron

OVER = text("""
DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM idempotency_keys WHERE expires_at < statement_timestamp() ORDER BY expires_at LIMIT :batch
    FOR UPDATE SKIP LOCKED))
""")


@actor(name="access.forget", cron=Cron("*/5 * * * *"), time_limit=3600)
async def forget_answers() -> None:
    """Delete the answers of keys that are over."""
    await forget(OVER)
