"""Helpers of the tests of limits: an actor with any options, and its messages."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from callboard_workers import Actor, Done, Message, State, actor, registry
from callboard_workers.ledger import Claim, Ledger
from callboard_workers.runtime import Runtime


def noop(**options: Any) -> Actor[Any, Any]:
    """The actor `t.noop` with these options; the next one takes its place."""

    async def do(what: Any = None, tenant: int = 0) -> Any:
        return what

    registry.discard("t.noop")
    return actor(name="t.noop", **options)(do)


def forgetting() -> Iterator[Callable[..., Actor[Any, Any]]]:
    """`noop`, which is forgotten afterwards."""
    yield noop
    registry.discard("t.noop")


async def put(engine: AsyncEngine, sender: Any, *args: Any, **kwargs: Any) -> Message:
    async with AsyncSession(engine) as session:
        message: Message = await sender.enqueue(session, *args, **kwargs)
        await session.commit()
    while Runtime.of_loop()._admitting:  # noqa: ASYNC110 - what there is room for is let in beside this
        await asyncio.sleep(0.001)
    return message


async def count(engine: AsyncEngine, where: str = "true") -> int:
    async with engine.connect() as connection:
        return int(await connection.scalar(sa.text(f"SELECT count(*) FROM messages WHERE {where}")) or 0)


async def finish(ledger: Ledger, claim: Claim | None) -> None:
    assert claim is not None
    assert await ledger.settle(claim, Done()) is State.DONE
