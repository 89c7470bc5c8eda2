"""Rows of the ledger in any state, and what became of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from callboard_workers.ledger.claims import Claim
from callboard_workers.ledger.database import fetch
from callboard_workers.ledger.schema import State, attempts, messages

PAST = sa.text("clock_timestamp() - interval '1 hour'")
FUTURE = sa.text("clock_timestamp() + interval '1 hour'")


async def make(engine: AsyncEngine, state: State | str = State.QUEUED, **columns: Any) -> UUID:
    """Insert one row; a running one gets a worker and a lease of a minute unless told otherwise."""
    id = columns.pop("id", None) or uuid7()
    values: dict[str, Any] = {"actor": "tests.noop", "queue": "default", "priority": 6, "args": [[], {}]}
    if state == State.RUNNING:
        lease = sa.text("clock_timestamp() + interval '1 minute'")
        values |= {"worker": "w", "lease_until": lease, "epoch": 1, "started_at": sa.text("clock_timestamp()")}
    async with engine.begin() as connection:
        await connection.execute(messages.insert().values(id=id, state=str(state), **(values | columns)))
    return id


async def look(engine: AsyncEngine, id: UUID) -> Any:
    """The row as it is now."""
    async with engine.connect() as connection:
        return (await connection.execute(messages.select().where(messages.c.id == id))).one()


async def tries(engine: AsyncEngine, id: UUID) -> list[Any]:
    """The attempts noted for a message, oldest first."""
    async with engine.connect() as connection:
        found = attempts.select().where(attempts.c.message_id == id).order_by(attempts.c.epoch)
        return list((await connection.execute(found)).all())


async def change(engine: AsyncEngine, id: UUID, **columns: Any) -> None:
    """Change a row by hand; the guard of the database has its say."""
    async with engine.begin() as connection:
        await connection.execute(messages.update().where(messages.c.id == id).values(**columns))


def holder(id: UUID, epoch: int = 1) -> Claim:
    """What the worker of a running row holds."""
    return Claim(
        id=id,
        epoch=epoch,
        actor="tests.noop",
        queue="default",
        priority=6,
        args=[],
        kwargs={},
        headers={},
        tenant_id=None,
        attempts=0,
        crashes=0,
        snoozes=0,
        waited=0.0,
    )


async def blocked(engine: AsyncEngine, fragment: str) -> int:
    """Wait until a statement with this text waits for a lock; the process id of its backend."""
    asking = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    for _ in range(2_000):
        found = await fetch(engine, f"{asking} AND position($1 IN query) > 0", fragment)
        if found:
            return int(found[0]["pid"])
        await asyncio.sleep(0.005)
    raise AssertionError(f"no statement with {fragment!r} waits for a lock")


@asynccontextmanager
async def locked(engine: AsyncEngine, id: UUID) -> AsyncIterator[None]:
    """Inside, somebody else holds the row."""
    async with engine.begin() as connection:
        await connection.execute(messages.select().where(messages.c.id == id).with_for_update())
        yield
