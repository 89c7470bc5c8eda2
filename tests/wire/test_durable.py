"""Messages that are rows, through a real worker: the broker may lose everything, the row decides."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
import redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.message import Message
from callboard_workers.redis.publisher import Publisher
from callboard_workers.runtime import Runtime
from tests.wire.durable import block, flaky, work
from tests.wire.process import OURS, STOCK, Worker, client, eventually, inspect

STEADY = {**OURS, "lease": 30.0}
"""For tests in which no lease is to lapse, however busy the machine is."""


@pytest.fixture
async def runtime(engine: AsyncEngine, redis_url: str) -> AsyncIterator[Runtime]:
    made = Runtime(engine, Publisher(redis_url))
    await made.start()
    yield made
    await made.stop()


async def enqueue(engine: AsyncEngine, tags: list[str], seconds: float = 0.0) -> list[Message]:
    async with engine.begin() as connection:
        return [await work.enqueue(connection, tag, seconds) for tag in tags]


async def states(engine: AsyncEngine) -> dict[UUID, str]:
    async with engine.connect() as connection:
        return {row.id: row.state for row in await connection.execute(text("SELECT id, state FROM messages"))}


async def all_are(engine: AsyncEngine, state: str, timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while set((await states(engine)).values()) != {state}:
        assert time.monotonic() < deadline, await states(engine)
        await asyncio.sleep(0.05)


@pytest.fixture(params=[OURS, STOCK], ids=["our-consumer", "celery-consumer"])
def options(request: pytest.FixtureRequest) -> dict[str, object]:
    return {**request.param, "lease": STEADY["lease"]}


async def test_rows_are_run_once_each(  # noqa: PLR0917 - fixtures
    options: dict[str, object], runtime: Runtime, engine: AsyncEngine, database: str, redis_url: str, tmp_path: Path
) -> None:
    with Worker(redis_url, tmp_path, app="tests.wire.durable", DATABASE_URL=database, options=options) as worker:
        tags = [f"t{n}" for n in range(100)]
        await enqueue(engine, tags)
        async with engine.begin() as connection:
            await flaky.enqueue(connection, "f", 3)
        await all_are(engine, "done")
        assert [worker.notes()[f"end {tag}"] for tag in tags] == [1] * 100
        assert worker.notes()["attempt3 f"] == 1
        assert worker.stop() == 0


async def test_rows_survive_the_loss_of_the_broker_and_of_the_worker(
    runtime: Runtime, engine: AsyncEngine, database: str, redis_url: str, tmp_path: Path
) -> None:
    with Worker(redis_url, tmp_path, app="tests.wire.durable", DATABASE_URL=database) as first:
        tags = [f"t{n}" for n in range(60)]
        await enqueue(engine, tags, 0.5)
        eventually(lambda: len(first.notes()) > 20, "they run")
        first.kill()
    with redis.Redis.from_url(redis_url) as server:
        server.flushall()
    with Worker(redis_url, tmp_path, name="w2", app="tests.wire.durable", DATABASE_URL=database) as second:
        await all_are(engine, "done")
        assert all(second.notes()[f"end {tag}"] == 1 for tag in tags)


async def test_a_stopping_worker_gives_its_rows_back_at_no_cost(
    runtime: Runtime, engine: AsyncEngine, database: str, redis_url: str, tmp_path: Path
) -> None:
    options = {**OURS, "grace": 0.3, "lease": 60.0}
    with Worker(redis_url, tmp_path, app="tests.wire.durable", DATABASE_URL=database, options=options) as worker:
        await enqueue(engine, ["a", "b"], 30)
        worker.wait_for("start a", "start b")
        assert worker.stop() == 0
    async with engine.connect() as connection:
        rows = (await connection.execute(text("SELECT state, attempts, crashes FROM messages"))).all()
    assert [tuple(row) for row in rows] == [("queued", 0, 0)] * 2


async def noted(worker: Worker, note: str, times: int = 1) -> None:
    """Waits for the journal while this loop goes on ringing."""
    await asyncio.to_thread(eventually, lambda: worker.notes()[note] >= times, f"{times} x {note}; {worker.log}")


async def test_revoking_a_running_row_cancels_it(  # noqa: PLR0917 - fixtures
    options: dict[str, object], runtime: Runtime, engine: AsyncEngine, database: str, redis_url: str, tmp_path: Path
) -> None:
    with Worker(redis_url, tmp_path, app="tests.wire.durable", DATABASE_URL=database, options=options) as worker:
        stock = client(redis_url)
        [message] = await enqueue(engine, ["a"], 60)
        await noted(worker, "start a")
        [active] = inspect(stock, worker).active()[worker.node]
        assert active["id"] == message.task_id
        stock.control.revoke(message.task_id, terminate=True)
        await all_are(engine, "canceled")
        eventually(lambda: not inspect(stock, worker).active()[worker.node], "nothing runs")
        assert not worker.notes()["end a"]


async def test_revoking_without_terminate_cancels_a_running_row_too(
    runtime: Runtime, engine: AsyncEngine, database: str, redis_url: str, tmp_path: Path
) -> None:
    with Worker(redis_url, tmp_path, app="tests.wire.durable", DATABASE_URL=database) as worker:
        [message] = await enqueue(engine, ["a"], 60)
        await noted(worker, "start a")
        client(redis_url).control.revoke(message.task_id)
        await all_are(engine, "canceled")


async def test_a_second_doorbell_does_not_hide_what_runs_from_a_revoke(
    runtime: Runtime, engine: AsyncEngine, database: str, redis_url: str, tmp_path: Path
) -> None:
    with Worker(redis_url, tmp_path, app="tests.wire.durable", DATABASE_URL=database, options=STEADY) as worker:
        stock = client(redis_url)
        [message] = await enqueue(engine, ["a"], 60)
        await noted(worker, "start a")
        for _ in range(3):
            runtime.publisher.ring([message])
        await asyncio.sleep(0)
        stats = lambda: inspect(stock, worker).stats()[worker.node]["total"]["durable.work"]  # noqa: E731
        await asyncio.to_thread(eventually, lambda: stats() == 4, "the doorbells were answered")
        ask = inspect(stock, worker)
        assert ask.query_task(message.task_id)[worker.node][message.task_id][0] == "active"
        stock.control.revoke(message.task_id, terminate=True)
        await all_are(engine, "canceled")
        eventually(lambda: not ask.active()[worker.node], "nothing runs")


async def test_a_row_that_began_again_after_its_lease_lapsed_can_be_revoked(
    runtime: Runtime, engine: AsyncEngine, database: str, redis_url: str, tmp_path: Path
) -> None:
    with Worker(redis_url, tmp_path, app="tests.wire.durable", DATABASE_URL=database) as worker:
        [message] = await enqueue(engine, ["a"], 60)
        await noted(worker, "start a")
        worker.signal(signal.SIGSTOP)
        for _ in range(600):
            await asyncio.sleep(0.1)
            if (await runtime.ledger.sweep(runtime.publisher.ring)).reclaimed:
                break
        worker.signal(signal.SIGCONT)
        await noted(worker, "start a", 2)
        client(redis_url).control.revoke(message.task_id, terminate=True)
        await all_are(engine, "canceled")
        assert not worker.notes()["end a"]


async def test_revoking_a_row_before_it_runs_cancels_it(
    runtime: Runtime, engine: AsyncEngine, database: str, redis_url: str, tmp_path: Path
) -> None:
    with Worker(redis_url, tmp_path, app="tests.wire.durable", DATABASE_URL=database) as worker:
        stock = client(redis_url)
        async with engine.begin() as connection:
            message = await work.options(delay=300).enqueue(connection, "a")
        stock.control.revoke(message.task_id)
        await all_are(engine, "canceled")
        assert not worker.notes()["start a"]


async def test_a_row_whose_worker_blocks_its_loop_moves_on(
    runtime: Runtime, engine: AsyncEngine, database: str, redis_url: str, tmp_path: Path
) -> None:
    with Worker(redis_url, tmp_path, app="tests.wire.durable", DATABASE_URL=database) as first:
        async with engine.begin() as connection:
            await block.enqueue(connection, "b", 600.0)
        await noted(first, "start b")
        with Worker(redis_url, tmp_path, name="w2", app="tests.wire.durable", DATABASE_URL=database) as second:
            await noted(second, "end b")
            await all_are(engine, "done")
        await asyncio.to_thread(eventually, lambda: "loop_stalled" in first.log.read_text(), "the stack is in the log")
        assert "time.sleep" in first.log.read_text()
