"""What simulated recipients report takes the way of every other report, after the email is sent."""

from collections.abc import Sequence

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from service.emails.inbound.ingest import ingest
from service.emails.inbound.report import Report, key_of
from service.emails.inbound.tags import Tags
from service.emails.stored import Stored
from workers.runtime import Runtime


async def take_in(stored: Stored, reports: Sequence[Report]) -> None:
    """Take in what is reported of an email that was sent; reports that were taken in before change nothing."""
    engine = Runtime.of_loop().engine
    async with AsyncSession(engine) as session, session.begin():
        for report in reports:
            key = key_of("simulator", stored.id.hex, report.action, report.recipient or "")
            named = msgspec.structs.replace(report, key=key, names=(stored.id.hex,))
            await ingest(session, stored.tenant_id, named, mode=stored.mode, by="simulator", tags=Tags([]))
