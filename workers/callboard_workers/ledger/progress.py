"""Progress: how far an attempt is, for whoever polls; the latest word wins."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from callboard_workers.ledger.database import fetch
from callboard_workers.ledger.json import storable

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

PROGRESS = """
WITH word AS (
    SELECT held.id, w.progress
    FROM (SELECT set_config('synchronous_commit', 'off', true)) AS unhurried
    CROSS JOIN (SELECT * FROM unnest($1::uuid[], $2::integer[], $3::text[]) AS w(id, epoch, progress) ORDER BY id) AS w
    CROSS JOIN LATERAL (
        SELECT m.id FROM messages m
        WHERE m.id = w.id AND m.epoch = w.epoch AND m.state || '' = 'running'
        FOR NO KEY UPDATE
    ) AS held
)
UPDATE messages m SET progress = word.progress::jsonb FROM word
WHERE m.id = word.id AND m.state || '' = 'running'
"""


class Progress(msgspec.Struct, frozen=True):
    """So many of so many are done; `note` says what is being done."""

    id: UUID
    epoch: int
    done: int
    total: int | None = None
    note: str = ""

    def words(self) -> dict[str, object]:
        """What is stored; without a note there is none."""
        return {"done": self.done, "total": self.total, **({"note": self.note} if self.note else {})}


async def progress(engine: AsyncEngine, words: list[Progress]) -> list[None]:
    """Note a batch; of several words about one message the last is kept. No actor waits for the disk over it."""
    last = {word.id: word for word in words}
    await fetch(
        engine,
        PROGRESS,
        [word.id for word in last.values()],
        [word.epoch for word in last.values()],
        [storable(word.words()) for word in last.values()],
    )
    return [None] * len(words)
