"""Prune: what has ended long ago goes, in small batches; results go when their time is over.

Ids begin with their time, so the oldest rows are the first of the primary key: no other index is needed, and settling
pays nothing for it. Dead, held and uncertain messages stay: they wait for a person.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from callboard_workers.ledger.database import LOCK, fetch

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

BATCH = 1_000
"""Rows looked at in one statement."""

REST = 600.0
"""Seconds between two passes over what is old; a tenth of the retention where that is less."""

FIRST = UUID(int=0)

_GATE = f"(SELECT pg_try_advisory_xact_lock({LOCK}))"

PRUNE = f"""
WITH old AS MATERIALIZED (
    SELECT id, state, finished_at, follow FROM messages
    WHERE {_GATE} AND id > $1 AND id < $2 ORDER BY id LIMIT $3
),
gone AS (
    DELETE FROM messages m USING old
    WHERE m.id = old.id AND old.state IN ('done', 'canceled', 'expired')
        AND old.finished_at < statement_timestamp() - make_interval(secs => $4)
        AND NOT EXISTS (
            SELECT FROM message_groups g WHERE g.id = (old.follow ->> 'group')::uuid AND g.pending > 0
        )
    RETURNING m.id
),
tried AS (DELETE FROM message_attempts a USING gone WHERE a.message_id = gone.id)
SELECT count(*) AS seen, (SELECT count(*) FROM gone) AS gone, (SELECT id FROM old ORDER BY id DESC LIMIT 1) AS last
FROM old
"""  # noqa: S608 (our own constants)

FORGET = """
WITH groups AS (DELETE FROM message_groups WHERE id < $1 AND pending <= 0),
    keys AS (DELETE FROM message_keys WHERE until <= statement_timestamp())
DELETE FROM message_starts WHERE until <= statement_timestamp()
"""

RESULTS = f"""
WITH over AS (
    SELECT id FROM messages WHERE {_GATE} AND result_until <= statement_timestamp()
    ORDER BY result_until LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE messages m SET result = NULL, result_until = NULL FROM over WHERE m.id = over.id AND m.state = 'done'
RETURNING m.id
"""  # noqa: S608 (our own constants)


NOW = "SELECT extract(epoch FROM clock_timestamp())::float8 AS now"


class Pruned(msgspec.Struct, frozen=True):
    """What one batch did; `full`: there is more to look at."""

    messages: int = 0
    results: int = 0
    full: bool = False


class Pruner:
    """Goes over what is older than `retention` seconds, one batch at a time, and rests at the end of a pass."""

    def __init__(self, engine: AsyncEngine, retention: float) -> None:
        self._engine = engine
        self._retention = retention
        self._after = FIRST
        self._rests_until = 0.0

    async def step(self) -> Pruned:
        """One batch of each duty."""
        results = len(await fetch(self._engine, RESULTS, BATCH))
        if time.monotonic() < self._rests_until:
            return Pruned(results=results, full=results >= BATCH)
        before = await oldest(self._engine, self._retention)
        [row] = await fetch(self._engine, PRUNE, self._after, before, BATCH, self._retention)
        full = row["seen"] >= BATCH
        self._after = row["last"] if full else FIRST
        if not full:
            await fetch(self._engine, FORGET, before)
            self._rests_until = time.monotonic() + min(REST, self._retention / 10)
        return Pruned(messages=row["gone"], results=results, full=full)


async def oldest(engine: AsyncEngine, retention: float) -> UUID:
    """The lowest UUIDv7 that is not older than `retention` seconds, by Postgres' clock."""
    [row] = await fetch(engine, NOW)
    return first_id(row["now"] - retention)


def first_id(moment: float) -> UUID:
    """The lowest UUIDv7 of a moment (seconds since 1970)."""
    return UUID(int=(max(0, int(moment * 1_000)) << 80) | 7 << 76 | 2 << 62)
