"""Whoever cancels a running message does not wait for its next renewal."""

import asyncio
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from callboard_workers import Actor, Canceled, Done, current, execute
from callboard_workers import maintenance as keepers
from callboard_workers.testing import Workbench, doorbell, workbench
from tests.workers import behaving as behaviour
from tests.workers.ledger.rows import look


async def start(engine: AsyncEngine, bench: Workbench, behaving: Actor[..., Any], what: Any) -> Any:
    """A message that runs, and the task that runs it."""
    running = asyncio.Event()

    async def run() -> Any:
        running.set()
        return await what()

    behaviour.do["what"] = run
    async with AsyncSession(engine) as session:
        message = await behaving.enqueue(session)
        await session.commit()
    task = asyncio.create_task(execute(bench.runtime, doorbell(message)))
    await running.wait()
    return message, task


async def test_a_worker_hears_of_it_though_its_renewal_is_far_away(
    engine: AsyncEngine, behaving: Actor[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keepers, "HEAR_EVERY", 0.02)
    async with workbench(engine, lease=3600, sweep_every=3600) as bench:
        bench.runtime._keeper.start()
        message, task = await start(engine, bench, behaving, asyncio.Event().wait)
        await bench.runtime.ledger.cancel(message.id)
        assert isinstance(await asyncio.wait_for(task, 30), Canceled)
    assert (await look(engine, message.id)).state == "canceled"


async def test_what_has_only_just_begun_is_not_asked_about(
    engine: AsyncEngine, bench: Workbench, behaving: Actor[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = asyncio.Event()
    _, task = await start(engine, bench, behaving, done.wait)
    asked: list[int] = []

    async def canceled(held: Any) -> set[Any]:
        asked.append(len(held))
        return set()

    monkeypatch.setattr(bench.runtime.ledger, "canceled", canceled)
    await bench.runtime._keeper.hear()
    next(iter(bench.runtime.active.values())).started -= 1
    await bench.runtime._keeper.hear()
    assert asked == [0, 1]
    done.set()
    await task


async def test_past_its_fence_it_is_left_alone(
    engine: AsyncEngine, bench: Workbench, behaving: Actor[..., Any]
) -> None:
    done, passed = asyncio.Event(), asyncio.Event()

    async def fenced() -> str:
        await current().fence()
        passed.set()
        await done.wait()
        return "sent"

    message, task = await start(engine, bench, behaving, fenced)
    await passed.wait()
    next(iter(bench.runtime.active.values())).started -= 1
    assert await bench.runtime.ledger.cancel(message.id) == "refused"
    await bench.runtime._keeper.hear()
    done.set()
    assert await task == Done(result="sent")
