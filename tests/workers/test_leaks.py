"""An actor that starts tasks and forgets them is found out, and cannot fill the process."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from workers import actor
from workers.middleware.leaks import KEPT
from workers.testing import run_now, workbench


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
