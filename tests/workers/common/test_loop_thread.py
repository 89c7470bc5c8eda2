"""The loop thread: takes coroutines from other threads and ends tidily."""

from __future__ import annotations

import asyncio
import threading

import pytest

from callboard_workers.common.loop_thread import LoopThread


@pytest.fixture
def thread() -> LoopThread:
    made = LoopThread()
    made.start()
    return made


def test_a_coroutine_runs_on_the_loop_thread(thread: LoopThread) -> None:
    async def where() -> int:
        return threading.get_ident()

    assert thread.run(where()) == thread.ident != threading.get_ident()
    thread.stop()
    assert not thread.alive


def test_waiting_for_the_loop_from_the_loop_is_refused(thread: LoopThread) -> None:
    async def nothing() -> None: ...

    async def wait() -> None:
        thread.run(nothing())

    with pytest.raises(RuntimeError, match="await the coroutine"):
        thread.run(wait())
    thread.stop()


def test_an_answer_that_takes_too_long_is_cancelled(thread: LoopThread) -> None:
    cancelled = threading.Event()

    async def forever() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    with pytest.raises(TimeoutError):
        thread.run(forever(), timeout=0.05)
    assert cancelled.wait(60)
    thread.stop()


def test_stopping_cancels_what_still_runs(thread: LoopThread) -> None:
    ended = threading.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    thread.submit(forever())
    thread.stop()
    assert ended.is_set()
    thread.stop()  # twice is harmless
