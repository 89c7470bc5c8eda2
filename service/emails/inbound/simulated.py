"""What simulated receivers report takes the way of every other report, in the attempt that sends the mail."""

from collections.abc import Sequence

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from service.emails.inbound.ingest import ingest
from service.emails.inbound.report import Report, key_of
from service.emails.inbound.tags import Tags
from service.emails.stored import Stored
from workers.runtime import Runtime


async def hear(stored: Stored, reports: Sequence[Report]) -> None:
    """Take in what is said of a mail that was just sent; a second attempt at the same mail says nothing new."""
    if not reports:
        return
    engine = Runtime.of_loop().engine
    async with AsyncSession(engine) as session, session.begin():
        for report in reports:
            key = key_of("simulator", stored.id.hex, report.action, report.recipient or "")
            named = msgspec.structs.replace(report, key=key, names=(stored.id.hex,))
            await ingest(session, stored.tenant_id, named, mode=stored.mode, by="simulator", tags=Tags([]))
