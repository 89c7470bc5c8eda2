"""Actors of broadcasts: write their emails, notice their end, delete old ones."""

from uuid import UUID

from sqlalchemy import text

from callboard_workers.actors.actor import actor
from callboard_workers.cron import Cron
from callboard_workers.policy import Backoff
from callboard_workers.runtime import Runtime
from service.broadcasts.dispatch import expand
from service.broadcasts.models import ACTOR
from service.broadcasts.repository import ended
from service.db.retention import forget_records
from service.emails.actors import message

GONE = "b.id < :before AND NOT EXISTS (SELECT FROM emails e WHERE e.bulk_id = b.id)"
OLD_RECIPIENTS = text(f"""
DELETE FROM bulk_recipients r USING (
    SELECT r.bulk_id, r.seq FROM bulks b JOIN bulk_recipients r ON r.bulk_id = b.id WHERE {GONE} LIMIT :batch
) AS old WHERE r.bulk_id = old.bulk_id AND r.seq = old.seq
""")  # noqa: S608 (our own SQL)
OLD_BULKS = text(f"""
DELETE FROM bulks WHERE id = ANY (ARRAY(
    SELECT b.id FROM bulks b
    WHERE {GONE} AND NOT EXISTS (SELECT FROM bulk_recipients r WHERE r.bulk_id = b.id) LIMIT :batch))
""")  # noqa: S608 (our own SQL)


@actor(
    name=ACTOR,
    queue="email",
    max_retries=500,
    backoff=Backoff(min=1, max=60),
    time_limit=600,
    max_snoozes=32_767,
)
async def expand_bulk(bulk_id: UUID) -> None:
    """Write the mails of a bulk; this message has the bulk's id."""
    await expand(bulk_id, message)


@actor(name="emails.end_bulks", cron=Cron("* * * * *"), time_limit=300)
async def end_bulks() -> None:
    """Note which bulks have nothing left that waits: so `bulk.completed` is told."""
    engine = Runtime.of_loop().engine
    assert engine is not None  # noqa: S101 - bulks are in Postgres
    found = True
    while found:
        async with engine.begin() as connection:
            found = await ended(connection) is not None


@actor(name="emails.forget_bulks", cron=Cron("47 * * * *"), time_limit=3600)
async def forget_bulks() -> None:
    """Delete bulks older than RECORD_RETENTION with their recipients, once their mails are gone."""
    await forget_records(OLD_RECIPIENTS)
    await forget_records(OLD_BULKS)
