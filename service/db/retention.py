"""Forgets records whose time is over, in small transactions, so that a table is as large as what it is kept for.

Each slice says by an actor of its own what it forgets; RECORD_RETENTION says when.
"""

import asyncio
from uuid import UUID

from sqlalchemy import TextClause
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.context import current
from callboard_workers.errors import NoRuntime
from callboard_workers.ledger import pruning
from callboard_workers.runtime import Runtime

BATCH = 1_000
"""Rows that go in one transaction."""

PAUSE = 0.02
"""Seconds between two of them: forgetting is in no hurry."""

MOST = 1_000_000
"""Rows that go in one run; the rest goes in the next."""


async def forget(statement: TextClause, **values: object) -> int:
    """Run a DELETE that takes at most `:batch` rows until it takes fewer; how many went. Cancelled, it loses nothing.

    Raises NoRuntime where the actor runs without a database.
    """
    engine, gone = _engine(), 0
    while gone < MOST:
        async with engine.begin() as connection:
            batch = (await connection.execute(statement, {"batch": BATCH, **values})).rowcount
        gone += batch
        if batch < BATCH:
            break
        await asyncio.sleep(PAUSE)
    if gone:
        current().log.info("records_forgotten", count=gone)
    return gone


async def forget_records(statement: TextClause) -> int:
    """The same for records with UUIDv7 ids: `:before` is the first id that is young enough to stay (RECORD_RETENTION).

    Where RECORD_RETENTION is 0 nothing goes.
    """
    retention = Runtime.of_loop().state["settings"].record_retention
    return await forget(statement, before=await oldest(retention)) if retention else 0


async def oldest(retention: float) -> UUID:
    """The lowest id that is not older than `retention` seconds, by Postgres' clock."""
    return await pruning.oldest(_engine(), retention)


def _engine() -> AsyncEngine:
    engine = Runtime.of_loop().engine
    if engine is None:
        raise NoRuntime("records are in Postgres: this Runtime was made without an engine")
    return engine
