"""Bounded threads beside the loop: `def` actors and Celery's own `def` tasks run there."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from callboard_workers.common.fair import FairLimiter, Turn, current_turn
from callboard_workers.context import Context


class Threads:
    """A pool of threads, each of which is reserved before its work begins. Loop thread only."""

    def __init__(self, limit: int, name: str, initializer: Callable[[], object] | None = None) -> None:
        self._pool = ThreadPoolExecutor(limit, thread_name_prefix=name, initializer=initializer)
        self._free = FairLimiter(limit, waiting=1_000_000)

    @property
    def full(self) -> bool:
        """Whether the next to reserve one has to wait."""
        return not self._free.free or self._free.waiting > 0

    async def reserve(self) -> Reserved:
        """Wait for a free thread: by priority, then fairly by tenant."""
        turn = current_turn()
        await self._free.acquire(turn=turn)
        return Reserved(self._pool, self._free, turn)

    @asynccontextmanager
    async def reserved(self, context: Context) -> AsyncIterator[Reserved]:
        """A free thread for an attempt, whose time limit does not run while it waits for one."""
        watch = context.deadlines if self.full else None
        left = watch.pause(context) if watch is not None else None
        thread = await self.reserve()
        if watch is not None:
            watch.resume(context, left)
        try:
            yield thread
        finally:
            thread.release()

    def close(self) -> None:
        """Begin nothing more; what runs is left to itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class Reserved:
    """A thread that is kept free for one call."""

    def __init__(self, pool: ThreadPoolExecutor, free: FairLimiter, turn: Turn) -> None:
        self._pool = pool
        self._free = free
        self._turn = turn
        self._used = False

    def start(self, call: Callable[[], Any]) -> asyncio.Future[Any]:
        """Run `call` there, with the context variables of here; the thread is free again when it ends.

        Do not cancel the future: wait for it with asyncio.shield.
        """
        self._used = True
        running = asyncio.wrap_future(self._pool.submit(contextvars.copy_context().run, call))
        running.add_done_callback(self._end)
        return running

    def release(self) -> None:
        """Free the thread, unless something runs there: then its end does."""
        if not self._used:
            self._used = True
            self._free.release(turn=self._turn)

    def _end(self, _: object) -> None:
        self._free.release(turn=self._turn)


async def in_thread(thread: Reserved, context: Context, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Run a function in the thread, with the context variables of here.

    A thread cannot be interrupted: a cancelled attempt is told by `current().cancelled`, and ends when the function
    does; what does not end in its grace is written off like any other.
    """
    context.loop = asyncio.get_running_loop()
    running = thread.start(functools.partial(fn, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        context.cancel()
        await asyncio.wait({running})
        raise
    finally:
        del running  # it holds the exception, and its traceback holds this frame
