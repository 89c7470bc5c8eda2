"""A broker in memory: what was sent, what waits, and what is put off."""

from __future__ import annotations

import datetime as dt
import heapq
import itertools
from collections import deque
from collections.abc import Sequence

import msgspec

from callboard_workers.message import Delivery, Message
from callboard_workers.testing.clock import Clock


class MemoryBroker:
    """Keeps what it is given: `published` and `rung` are all there ever was, `waiting` is what is to be run now.

    What is put off is in `later` until its time has come by `clock`; `dead` are the messages without a row that were
    given up, with the reason.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.published: list[Message] = []
        self.rung: list[Message] = []
        self.waiting: deque[Delivery] = deque()
        self.later: list[tuple[dt.datetime, int, Delivery]] = []
        self.dead: list[tuple[Delivery, str]] = []
        self._order = itertools.count()

    async def start(self) -> None:
        """Nothing to connect to."""

    async def stop(self) -> None:
        """Nothing to close."""

    async def publish(self, messages: Sequence[Message]) -> None:
        self.published.extend(messages)
        for message in messages:
            at = None if message.due_at is None else message.due_at + dt.timedelta(seconds=self.clock.ahead)
            self.put(delivery(message, self.clock.now()), at=at, delay=message.delay or 0.0)

    def ring(self, messages: Sequence[Message]) -> None:
        self.rung.extend(messages)
        self.waiting.extend(doorbell(message) for message in messages)

    def put(self, arriving: Delivery, *, at: dt.datetime | None = None, delay: float = 0.0) -> None:
        """Deliver at a moment of the clock, or in `delay` seconds."""
        moment = at or self.clock.now() + dt.timedelta(seconds=delay)
        if moment <= self.clock.now():
            self.waiting.append(arriving)
        else:
            heapq.heappush(self.later, (moment, next(self._order), arriving))

    def take(self) -> Delivery | None:
        """The next delivery that is due; None if none is."""
        while self.later and self.later[0][0] <= self.clock.now():
            self.waiting.append(heapq.heappop(self.later)[2])
        if not self.waiting:
            return None
        arrived = self.waiting.popleft()
        if arrived.expires_at is None:
            return arrived
        return msgspec.structs.replace(arrived, expires_at=self.clock.real(arrived.expires_at))

    def next(self) -> float | None:
        """Seconds until something that is put off is due; None if nothing is."""
        return max(0.0, (self.later[0][0] - self.clock.now()).total_seconds()) if self.later else None


def delivery(message: Message, now: dt.datetime | None = None) -> Delivery:
    """A message without a row as it arrives at a worker."""
    moment = now or dt.datetime.now(dt.UTC)
    return Delivery(
        id=message.id,
        actor=message.actor,
        args=message.args,
        kwargs=message.kwargs,
        headers=dict(message.headers),
        queue=message.queue,
        expires_at=None if message.expires is None else moment + dt.timedelta(seconds=message.expires),
    )


def doorbell(message: Message) -> Delivery:
    """The doorbell of a durable message as it arrives at a worker."""
    return Delivery(
        id=message.id, actor=message.actor, headers=dict(message.headers), queue=message.queue, durable=True
    )
