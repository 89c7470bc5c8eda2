"""Large emails: loaded once a connection is there, within the memory that a worker process has for them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from callboard_workers.common.fair import FairLimiter, Turn, current_turn
from callboard_workers.errors import Overloaded
from service.mail.message import Mail
from service.smtp import Backoff, Kind, Phase, SmtpError

FACTOR = 4
"""Bytes of memory for each stored byte while an email is loaded, encoded, signed and sent: four copies at the peak."""
SHARE = 0.5
"""The part of the memory that one tenant's emails may take together: a slow server of its own keeps no more busy."""


class Large:
    """An email that is composed when its connection is there, in memory reserved for it until it was sent.

    A connection comes first, then memory, and one that would have to wait for memory gives its connection back: nobody
    waits for memory with a connection, and who waits for a connection with memory is the next to get one. So neither
    is idle because of the other, and the two cannot block each other. An email for which the whole memory is too small
    goes alone.
    """

    def __init__(self, sender: str, size: int, memory: FairLimiter, compose: Callable[[], Awaitable[Mail]]) -> None:
        """`size`: its stored bytes; `compose` loads it and makes it."""
        self.sender = sender
        self._amount = FACTOR * size
        self._memory = memory
        self._compose = compose
        self._turn: Turn | None = None

    async def compose(self) -> Mail:
        """Load it. Call this with the memory reserved."""
        return await self._compose()

    def reserve_now(self) -> bool:
        """Reserve its memory if it is there."""
        turn = current_turn()
        if self._memory.try_acquire(self._amount, turn=turn):
            self._turn = turn
        return self._turn is not None

    async def reserve(self, deadline: float) -> None:
        """Wait for its memory, until a moment (loop time). Raises SmtpError (temporary, `memory_full`)."""
        turn = current_turn()
        try:
            async with asyncio.timeout_at(deadline):
                await self._memory.acquire(self._amount, turn=turn)
        except (TimeoutError, Overloaded) as error:
            text = "large emails of this worker wait for memory (EMAIL_MEMORY)"
            raise SmtpError(
                Phase.CONNECT, None, text, Kind.TEMPORARY, reason="memory_full", backoff=Backoff.SHORT
            ) from error
        self._turn = turn

    def release(self) -> None:
        """Give its memory back; again is harmless."""
        turn, self._turn = self._turn, None
        if turn is not None:
            self._memory.release(self._amount, turn=turn)

    @asynccontextmanager
    async def composed(self, deadline: float) -> AsyncIterator[Mail]:
        """The email, in memory reserved for it, where no connection is needed. Raises SmtpError."""
        await self.reserve(deadline)
        try:
            yield await self.compose()
        finally:
            self.release()
