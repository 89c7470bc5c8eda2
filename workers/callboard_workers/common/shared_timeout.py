"""Bounds many waits of one length with one timer: `asyncio.timeout` costs a batch's share of a round trip each time."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

Future = asyncio.Future[Any]


class Patience:
    """Fails futures of one loop that are not done `seconds` after they were handed in, with TimeoutError.

    They end in the order in which they came, so only the first one's end is waited for.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._ends: dict[Future, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def bear(self, future: Future) -> Any:
        """Await `future`; raises TimeoutError where it takes too long. A waiter that is cancelled cancels it."""
        loop = future.get_loop()
        self._ends[future] = loop.time() + self.seconds
        if self._timer is None:
            self._timer = loop.call_later(self.seconds, self._look, context=contextvars.Context())
        try:
            return await future
        finally:
            del self._ends[future]

    def _look(self) -> None:
        """Fail what is over; come back when the next one is."""
        self._timer = None
        for future, end in self._ends.items():
            loop = future.get_loop()
            if end > loop.time():
                self._timer = loop.call_at(end, self._look, context=contextvars.Context())
                return
            if not future.done():
                future.set_exception(TimeoutError())
