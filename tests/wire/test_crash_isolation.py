"""Workers that are really killed: only the message that did it is quarantined, and everything beside it finishes."""

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from callboard_workers.redis.publisher import Publisher
from callboard_workers.runtime import Runtime
from tests.wire.durable import poison, wait
from tests.wire.process import Worker, eventually

BYSTANDERS = 500
MOST_DEATHS = 30
"""Far more than it takes: nine halve 501 messages to one, three are its own."""
STATES = "SELECT actor, state, count(*) FROM messages GROUP BY actor, state"
CRASHED = "SELECT m.actor, count(*) FROM message_attempts a JOIN messages m ON m.id = a.message_id"


async def states(engine: AsyncEngine) -> dict[tuple[str, str], int]:
    async with engine.connect() as connection:
        return {(row[0], row[1]): row[2] for row in await connection.execute(text(STATES))}


async def until(condition: Callable[[], bool], worker: Worker, what: str) -> None:
    """Waits for it, or for the death of the worker."""
    await asyncio.to_thread(eventually, lambda: condition() or not worker.alive, what)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("kills", [3])
async def test_one_poisonous_message_among_500_bystanders_is_the_only_one_to_end(
    engine: AsyncEngine, database: str, redis_url: str, tmp_path: Path, kills: int
) -> None:
    runtime = Runtime(engine, Publisher(redis_url))
    await runtime.start()
    bystanders, culprit = uuid7(), uuid7()
    worker = Worker(redis_url, tmp_path, "-c", "600", app="tests.wire.durable", DATABASE_URL=database)
    tags = [f"b{number}" for number in range(BYSTANDERS)]
    async with engine.begin() as connection:
        for tag in tags:
            await wait.options(tenant_id=bystanders).enqueue(connection, tag)
        killer: UUID = (await poison.options(tenant_id=culprit).enqueue(connection, "p")).id
    try:
        await asyncio.to_thread(worker.start)
        await until(lambda: False, worker, "the poisonous message kills its worker beside the others")
        assert worker.notes()["start p"] == 1
        for _ in range(kills):
            before = worker.notes().total()
            await asyncio.to_thread(worker.start)
            await until(lambda before=before: worker.notes().total() >= before + 50, worker, "many wait")
            worker.kill()
        await asyncio.to_thread(Path(f"{worker.journal}.open").touch)
        deaths = 0
        while await states(engine) != {("durable.wait", "done"): BYSTANDERS, ("durable.poison", "dead"): 1}:
            assert deaths <= MOST_DEATHS, await states(engine)
            if not worker.alive:
                deaths += 1
                await asyncio.to_thread(worker.start)
            await asyncio.sleep(0.2)
        async with engine.connect() as connection:
            counted = f"{CRASHED} WHERE a.outcome = 'crashed' GROUP BY m.actor"
            crashed = Counter({row[0]: row[1] for row in await connection.execute(text(counted))})
            [row] = await connection.execute(text("SELECT crashes, error FROM messages WHERE id = :id"), {"id": killer})
        print(f"{deaths} more deaths; counted: {dict(crashed)}")
        assert (row.crashes, row.error["reason"]) == (3, "quarantined")
        assert crashed["durable.poison"] == 3
        assert [worker.notes()[f"end {tag}"] for tag in tags] == [1] * BYSTANDERS
    finally:
        worker.kill()
        await runtime.stop()
