"""How far a broadcast is: how much is done, how fast, and when it ends. Counted from its emails."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.emails.bulk.schemas import BulkOut
from service.emails.bulk.telling import UNDER_WAY

RECENT = timedelta(minutes=5)

ENDS = text("SELECT id, ended_at FROM bulks WHERE id = ANY(:ids)")
PACE = text("""
SELECT count(*) AS emails, min(updated_at) AS since, clock_timestamp() AS now FROM emails
WHERE bulk_id = :id AND status NOT IN ('queued', 'sending')
    AND updated_at > clock_timestamp() - CAST(:recent AS interval)
""")


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """`done` of `total` emails have ended; `rate` of them a minute lately; `left` is the time that the rest takes."""

    done: int
    total: int
    ended_at: datetime | None
    rate: float | None = None
    left: timedelta | None = None

    @property
    def percent(self) -> int:
        """The share that is done; 100 only when all are."""
        return 100 * self.done // self.total if self.total else 0


async def ends(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, datetime | None]:
    """Return when each of these broadcasts ended; None for one that has not."""
    found = await connection.execute(ENDS, {"ids": list(ids)})
    return {row.id: row.ended_at for row in found}


def progress(broadcast: BulkOut, ended_at: datetime | None) -> Progress:
    """How far a broadcast is."""
    waiting = sum(broadcast.counts.get(word, 0) for word in UNDER_WAY)
    return Progress(done=max(0, broadcast.total - waiting), total=broadcast.total, ended_at=ended_at)


async def pace(connection: AsyncConnection, id: UUID, known: Progress) -> Progress:
    """Add how many emails a minute ended lately, and how long the rest takes at this rate."""
    row = (await connection.execute(PACE, {"id": id, "recent": RECENT})).one()
    if not row.emails or row.since is None:
        return known
    seconds = max(1.0, (row.now.astimezone(UTC) - row.since.astimezone(UTC)).total_seconds())
    rate = row.emails / seconds * 60
    left = timedelta(seconds=(known.total - known.done) / rate * 60)
    return msgspec.structs.replace(known, rate=round(rate, 1), left=left)
