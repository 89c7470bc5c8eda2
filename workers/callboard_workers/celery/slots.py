"""Room for concurrent coroutines in one worker process."""

from __future__ import annotations

import asyncio
from collections import deque


class Slots:
    """A counter of free places that can grow and shrink while places are taken. Loop thread only."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def free(self) -> int:
        """Places that may be taken now; 0 while more are taken than the limit has become."""
        return max(0, self.limit - self.taken)

    async def take(self) -> None:
        """Waits for a place, first come first served."""
        if self.taken < self.limit and not self._waiting:
            self.taken += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back()
            raise

    def take_now(self) -> None:
        """Takes a place without asking: the caller has looked at `free`."""
        self.taken += 1

    def give_back(self) -> None:
        """Frees a place."""
        self.taken -= 1
        self._admit()

    def resize(self, limit: int) -> None:
        """Changes the number of places; those taken stay taken."""
        self.limit = limit
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self.taken < self.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self.taken += 1
                turn.set_result(None)
