"""What simulated recipients report takes the way of every other report, after the email is sent."""

from collections.abc import Sequence

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from callboard_workers.runtime import Runtime
from service.emails.load import Stored
from service.emails.reports.ingest import ingest
from service.emails.reports.report import Report, key_of
from service.emails.reports.tags import Tags


async def take_in(stored: Stored, reports: Sequence[Report]) -> None:
    """Take in what is reported of an email that was sent; reports that were taken in before change nothing."""
    engine = Runtime.of_loop().engine
    async with AsyncSession(engine) as session, session.begin():
        for report in reports:
            key = key_of("simulator", stored.id.hex, report.action, report.recipient or "")
            named = msgspec.structs.replace(report, key=key, names=(stored.id.hex,))
            await ingest(session, stored.tenant_id, named, mode=stored.mode, by="simulator", tags=Tags([]))
