"""What the jobs slice does: makes activities, and turns the month; and the names by which Celery clients knew both."""

from sqlalchemy import text

from callboard_workers.actors.actor import actor
from callboard_workers.context import current
from callboard_workers.cron import Cron
from callboard_workers.errors import NoRuntime
from callboard_workers.runtime import Runtime
from service.db.retention import forget_records
from service.jobs.quotas import turn_month

OLD = text("""
DELETE FROM jobs WHERE id = ANY (ARRAY(
    SELECT id FROM jobs WHERE id < :before AND status NOT IN ('pending', 'processing')
    ORDER BY id LIMIT :batch))
""")

STOCK = "celery"
"""Where a Celery client sends that was told of no queue: the names that such clients call are served there."""


@actor(name="jobs.forget", cron=Cron("7-59/10 * * * *"), time_limit=3600)
async def forget_jobs() -> None:
    """Delete jobs that ended, with input and result, once they are older than RECORD_RETENTION."""
    await forget_records(OLD)


@actor(name="reset_quotas_task", queue=STOCK, cron=Cron("0 0 1 * *"), result=3600)
async def reset_quotas() -> dict[str, int]:
    """Turn the month; see quotas.turn_month."""
    engine = Runtime.of_loop().engine
    if engine is None:
        raise NoRuntime("quotas are in Postgres: this Runtime was made without an engine")
    async with engine.begin() as connection:
        opened, forgotten = await turn_month(connection)
    current().log.info("quotas_turned", opened=opened, forgotten=forgotten)
    return {"opened": opened, "forgotten": forgotten}
