"""Messages whose worker died before anybody knew whether they had begun: run one after the other, marked beforehand.

One of them may kill its worker at once. Next time it is known which, and the others come to no harm by it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from callboard_workers.redis.in_flight import Holdings, Parcel

log = structlog.get_logger(__name__)

ALONE = 0.25
"""Seconds a suspect has to itself."""


class Suspects:
    """A queue within the worker. Loop thread."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Holdings, Parcel, Callable[[], asyncio.Task[None] | None]]] = deque()
        self._task: asyncio.Task[None] | None = None

    def add(self, holdings: Holdings, parcel: Parcel, begin: Callable[[], asyncio.Task[None] | None]) -> None:
        """Calls `begin` when it is the message's turn and Redis knows that it begins."""
        self._waiting.append((holdings, parcel, begin))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="suspects")

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._try(*self._waiting.popleft())
        finally:
            self._task = None

    async def _try(self, holdings: Holdings, parcel: Parcel, begin: Callable[[], asyncio.Task[None] | None]) -> None:
        if parcel.tag not in holdings.in_hand or not await holdings.mark(parcel):
            return
        try:
            task = begin()
        except Exception:
            log.exception("suspect_not_begun")
            holdings.put_back(parcel)
            return
        if task is not None:
            await asyncio.wait({task}, timeout=ALONE)
