"""An actor that starts tasks and forgets them is found out, and cannot fill the process."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from callboard_workers import actor
from callboard_workers.common.batcher import Batcher
from callboard_workers.middleware.leaks import KEPT
from callboard_workers.testing import run_now, workbench


async def test_what_outlives_its_attempt_is_told_and_bounded() -> None:
    started: list[asyncio.Task[None]] = []

    @actor(name="t.leaky")
    async def leaky(count: int) -> None:
        started.extend(asyncio.create_task(asyncio.sleep(600)) for _ in range(count))

    async with workbench() as bench:
        await bench.runtime.start(worker=True)
        with capture_logs() as lines:
            for _ in range(6):
                await run_now(leaky, 30)
        await asyncio.sleep(0.01)
        told = [line for line in lines if line["event"] == "task_leaked"]
        assert told[0]["outliving"] == 30
        assert told[0]["coroutine"] == "sleep"
        assert [line["cancelled"] for line in told] == [0, 20, 30, 30]
        alive = [task for task in started if not task.done()]
        assert len(alive) == KEPT
        assert alive == started[-KEPT:], "the oldest go first"
        for task in alive:
            task.cancel()


async def test_what_goes_on_for_others_is_nobodys_leak() -> None:
    begun, answer, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def flush(items: list[int]) -> list[int]:
        begun.set()
        await (answer if 1 in items else go_on).wait()
        return items

    batcher: Batcher[int, int] = Batcher(flush, max_batch=1, in_flight=1)

    @actor(name="t.batched")
    async def batched() -> None:
        await batcher.submit(1)

    async with workbench() as bench:
        await bench.runtime.start(worker=True)
        with capture_logs() as lines:
            attempt = asyncio.create_task(run_now(batched))
            await begun.wait()
            other = asyncio.create_task(batcher.submit(2))
            await asyncio.sleep(0)
            answer.set()
            await attempt
        assert not [line for line in lines if line["event"] == "task_leaked"]
        go_on.set()
        assert await other == 2


async def test_tasks_that_are_waited_for_are_nobodys_leak() -> None:
    @actor(name="t.tidy")
    async def tidy() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(300):
                group.create_task(asyncio.sleep(0))

    async with workbench() as bench:
        await bench.runtime.start(worker=True)
        with capture_logs() as lines:
            await run_now(tidy)
        assert not [line for line in lines if line["event"] == "task_leaked"]
