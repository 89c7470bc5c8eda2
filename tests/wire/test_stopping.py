"""A worker that stops: nothing passes its fence any more, what has passed it is awaited, the rest is given back."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.redis.publisher import Publisher
from callboard_workers.runtime import Runtime
from tests.wire.durable import fenced, late, release
from tests.wire.process import OURS, STOCK, Worker, eventually

ROWS = "SELECT actor, state, attempts, crashes, deaths FROM messages ORDER BY actor"


@pytest.fixture
async def runtime(engine: AsyncEngine, redis_url: str) -> AsyncIterator[Runtime]:
    made = Runtime(engine, Publisher(redis_url))
    await made.start()
    yield made
    await made.stop()


async def begin(engine: AsyncEngine, worker: Worker, *actors: Any) -> None:
    """Each of these is running."""
    async with engine.begin() as connection:
        for actor in actors:
            await actor.enqueue(connection, actor.name)
    await seen(worker, *(f"{'fenced' if actor is fenced else 'start'} {actor.name}" for actor in actors))


async def seen(worker: Worker, *notes: str) -> None:
    await asyncio.to_thread(worker.wait_for, *notes)


async def touch(worker: Worker, name: str) -> None:
    await asyncio.to_thread(Path(f"{worker.journal}.{name}").touch)


async def stop(worker: Worker) -> None:
    worker.signal(signal.SIGTERM)
    await asyncio.to_thread(eventually, lambda: "worker_stopping" in worker.log.read_text(), "it stops")


async def ended(worker: Worker) -> int:
    assert worker.process is not None
    return await asyncio.to_thread(worker.process.wait, 60)


async def until(engine: AsyncEngine, actor: str, state: str) -> None:
    async with asyncio.timeout(60):
        while (await rows(engine))[actor][0] != state:  # noqa: ASYNC110 - Postgres has no event
            await asyncio.sleep(0.05)


async def rows(engine: AsyncEngine) -> dict[str, tuple[Any, ...]]:
    async with engine.connect() as connection:
        return {row[0].removeprefix("durable."): tuple(row[1:]) for row in await connection.execute(text(ROWS))}


def workers(redis_url: str, folder: Path, database: str, **options: Any) -> Worker:
    options = {**OURS, "lease": 30.0, **options}
    return Worker(redis_url, folder, app="tests.wire.durable", DATABASE_URL=database, options=options)


@pytest.mark.parametrize("consumer", [OURS, STOCK], ids=["our-consumer", "celery-consumer"])
async def test_what_has_passed_its_fence_is_waited_for_and_nothing_passes_it_any_more(  # noqa: PLR0917 - fixtures
    runtime: Runtime, engine: AsyncEngine, database: str, redis_url: str, tmp_path: Path, consumer: dict[str, Any]
) -> None:
    with workers(redis_url, tmp_path, database, grace=600, **consumer) as worker:
        await begin(engine, worker, fenced, late, release)
        await stop(worker)
        await until(engine, "release", "queued")
        assert (await rows(engine))["late"][0] == "running", "it may finish within the grace"
        await touch(worker, "late")
        await until(engine, "late", "queued")
        assert worker.alive
        await touch(worker, "open")
        assert await ended(worker) == 0
        assert await rows(engine) == {
            "fenced": ("done", 0, 0, 0),
            "late": ("queued", 0, 0, 0),
            "release": ("queued", 0, 0, 0),
        }
        assert not worker.notes()["fenced durable.late"]


async def test_after_the_grace_only_what_has_passed_its_fence_goes_on(
    runtime: Runtime, engine: AsyncEngine, database: str, redis_url: str, tmp_path: Path
) -> None:
    with workers(redis_url, tmp_path, database, grace=0.2, fenced_timeout=600) as worker:
        await begin(engine, worker, fenced, late)
        await stop(worker)
        await until(engine, "late", "queued")
        await asyncio.sleep(0.5)
        assert worker.alive
        assert (await rows(engine))["fenced"][0] == "running"
        await touch(worker, "open")
        assert await ended(worker) == 0
        assert await rows(engine) == {"fenced": ("done", 0, 0, 0), "late": ("queued", 0, 0, 0)}


async def test_where_nothing_has_passed_its_fence_it_ends_without_waiting(
    runtime: Runtime, engine: AsyncEngine, database: str, redis_url: str, tmp_path: Path
) -> None:
    with workers(redis_url, tmp_path, database, grace=600, fenced_timeout=600) as worker:
        await begin(engine, worker, release)
        assert await asyncio.to_thread(worker.stop) == 0
        assert await rows(engine) == {"release": ("queued", 0, 0, 0)}


async def test_an_answer_that_does_not_come_in_time_is_an_unknown_outcome(
    runtime: Runtime, engine: AsyncEngine, database: str, redis_url: str, tmp_path: Path
) -> None:
    with workers(redis_url, tmp_path, database, grace=0.2, fenced_timeout=0.5) as worker:
        await begin(engine, worker, fenced)
        assert await asyncio.to_thread(worker.stop) == 0
        assert (await rows(engine))["fenced"][0] == "uncertain"


@pytest.mark.parametrize("first", [None, signal.SIGTERM])
async def test_sigquit_waits_for_nothing(  # noqa: PLR0917 - fixtures
    runtime: Runtime,
    engine: AsyncEngine,
    database: str,
    redis_url: str,
    tmp_path: Path,
    first: signal.Signals | None,
) -> None:
    with workers(redis_url, tmp_path, database, grace=600, fenced_timeout=600) as worker:
        await begin(engine, worker, fenced)
        if first is not None:
            await stop(worker)
        worker.signal(signal.SIGQUIT)
        await ended(worker)
        assert (await rows(engine))["fenced"][0] == "uncertain"
