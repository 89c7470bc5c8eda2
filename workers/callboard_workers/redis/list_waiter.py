"""Waiting without taking: a blocked connection for each list tells when something arrives.

`BLMOVE list list RIGHT RIGHT` moves the next message onto its own place: it wakes us and leaves the message where it
is, so nothing can be lost while waiting.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import ResponseError

from callboard_workers.errors import BrokerUnavailable
from callboard_workers.redis.connection import Link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

log = structlog.get_logger(__name__)

BLOCK = 5.0
"""Seconds a wait lasts on the server; a connection that is silent for longer is a dead one."""
SLACK = 3.0


class Peek:
    """One waiting coroutine for each list, all asleep while the worker is busy."""

    def __init__(self, url: str, ring: Callable[[], None]) -> None:
        self._url = url
        self._ring = ring
        self._armed: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def arm(self, keys: Iterable[str]) -> None:
        """Everything seen so far in these lists was fetched: tell of the next arrival, once for each."""
        for key in keys:
            if (armed := self._armed.get(key)) is not None:
                armed.set()

    def watch(self, keys: Iterable[str]) -> None:
        """Waits at these lists too."""
        for key in keys:
            if key not in self._tasks:
                self._armed[key] = asyncio.Event()
                self._tasks[key] = asyncio.get_running_loop().create_task(self._watch(key), name=f"peek {key!r}")

    def forget(self, keys: Iterable[str]) -> None:
        """Waits there no more."""
        for key in keys:
            if (task := self._tasks.pop(key, None)) is not None:
                task.cancel()

    def close(self) -> None:
        """Waits nowhere any more."""
        self.forget(tuple(self._tasks))

    async def _watch(self, key: str) -> None:
        link = Link(self._url)
        try:
            while True:
                await self._armed[key].wait()
                try:
                    [found] = await link.call([("BLMOVE", key, key, "RIGHT", "RIGHT", BLOCK)], BLOCK + SLACK)
                except BrokerUnavailable:
                    await asyncio.sleep(0.5)
                    continue
                if isinstance(found, ResponseError):  # an old server, or a full one: the poll remains
                    log.warning("peek_refused", key=key, error=str(found))
                    await asyncio.sleep(BLOCK)
                elif found is not None:
                    self._armed[key].clear()
                    self._ring()
        finally:
            await link.close()
