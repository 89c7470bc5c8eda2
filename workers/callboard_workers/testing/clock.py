"""The time of a workbench: the machine's, and what the test has let pass beside."""

from __future__ import annotations

import datetime as dt

import msgspec

from callboard_workers.message import Message
from callboard_workers.middleware.base import Middleware, Send


class Clock:
    """Says what time it is for a workbench; `ahead` is how many seconds the test has let pass.

    The machine's own seconds go on as well: leave a margin of some seconds where a test looks just before a moment.
    """

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> dt.datetime:
        """The moment it is (aware, UTC)."""
        return dt.datetime.now(dt.UTC) + dt.timedelta(seconds=self.ahead)

    def real(self, moment: dt.datetime) -> dt.datetime:
        """What a moment of this clock is by the machine's."""
        return moment - dt.timedelta(seconds=self.ahead)


class OnTheClock(Middleware):
    """A moment that a message names is one of the workbench's clock; the ledger is told it by its own."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def send(self, message: Message, next: Send) -> Message:
        if message.due_at is None or not self._clock.ahead:
            return await next(message)
        return await next(msgspec.structs.replace(message, due_at=self._clock.real(message.due_at)))
