"""Follows one feed from a number on: what SSE and WebSocket both send.

Nothing is queued for a reader. It takes page after page from Postgres at its own pace, so a slow one costs a page of
memory and nobody else any time; one that falls far behind is told so and comes back for the rest.
"""

from collections.abc import AsyncGenerator
from time import monotonic
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from service.db.engine import is_away
from service.feeds import repository
from service.feeds.live import Live, Seat
from service.feeds.repository import FeedCounts, Slice

PAGE = 20  # items read at once: what a reader that does not read keeps in memory
BEHIND = 1_000  # items that may wait for somebody who had them all before
QUIET = 15.0  # seconds after which an event without a name keeps the line open
AGAIN = (0.2, 5.0)  # seconds until Postgres is asked again where it was away: the first time, and at most
AGE = 3_600.0  # seconds after which a stream ends and its caller comes back


class Event(msgspec.Struct, frozen=True):
    """One event: its name, its data as JSON, and the number to come back with; heartbeats have no name."""

    name: str
    data: bytes = b""
    seq: int | None = None


async def follow(live: Live, seat: Seat, seq: int, *, age: float = AGE) -> AsyncGenerator[list[Event], None]:
    """Give what comes after `seq`, some events at a time, until the caller or the process goes.

    `ready` first; then a `notification` for each item in order; `counts` when something was marked elsewhere; an
    event without a name to keep the line open; `lagged` before the end of a stream whose reader is far behind.
    While Postgres is away, or has no connection to spare, the line stays open and it is asked again.
    """
    engine = live.runtime.engine
    if engine is None:
        return
    reader = _Reader(live, engine, seat, seq)
    until, said, pause = monotonic() + age, monotonic(), AGAIN[0]
    while not (live.stopping or seat.gone or seat.over) and monotonic() < until:
        seat.ready()
        try:
            events = await live.runtime.to_the_end(reader.read())
        except Exception as error:
            if not is_away(error):
                raise
            live.missed(error)
            await seat.wait(pause)
            pause = min(2 * pause, AGAIN[1])
        else:
            pause = AGAIN[0]
            if events:
                said = monotonic()
                yield events
            del events  # a reader that waits keeps nothing
            if reader.over:
                return
            if reader.more:
                continue
            await seat.wait(live.calm)
        if monotonic() - said >= QUIET:
            said = monotonic()
            yield [Event("")]


class _Reader:
    """What one stream was told so far, and what it is to be told next."""

    def __init__(self, live: Live, engine: AsyncEngine, seat: Seat, seq: int) -> None:
        self.over = False
        self.more = True  # something may be there that need not be waited for
        self._live, self._engine, self._seat, self._seq = live, engine, seat, seq
        self._greeted = False
        self._level = False  # it had all there was once: from then on it may fall behind only so far

    async def read(self) -> list[Event]:
        """Give the next events, none where nothing is new. What it raises changes nothing: call it again."""
        if not self._greeted:
            counted = await self._counts()
            self._greeted = True
            return [Event("ready", msgspec.json.encode({"seq": self._seq, **msgspec.to_builtins(counted)}), self._seq)]
        async with self._live.looks:
            found = await repository.after(self._engine, self._seat.no, self._seq, PAGE)
        if found is None:
            self.over = True
            return []
        if self._level and found.last_seq - self._seq > BEHIND:
            self.over = True
            return [Event("lagged", msgspec.json.encode({"seq": self._seq, "last_seq": found.last_seq}))]
        return self._items(found) or await self._marked()

    def _items(self, found: Slice) -> list[Event]:
        if found.items:
            self._seq = found.items[-1].seq
        left = bool(found.items) and found.last_seq > self._seq
        self._level = self._level or not left
        self.more = left or (bool(found.items) and self._seat.marked)
        return [Event("notification", msgspec.json.encode(item), item.seq) for item in found.items]

    async def _marked(self) -> list[Event]:
        if not self._seat.marked:
            return []
        self._seat.marked = False
        try:
            return [Event("counts", msgspec.json.encode(await self._counts()))]
        except Exception:
            self._seat.marked = True
            raise

    async def _counts(self) -> FeedCounts:
        async with self._live.looks, self._engine.connect() as connection:
            return await repository.counts(connection, self._seat.no)


def as_sse(events: list[Event]) -> bytes:
    """Write events as server-sent events (HTML Living Standard, 9.2)."""
    return b"".join(map(_frame, events))


def _frame(event: Event) -> bytes:
    if not event.name:
        return b": nothing new\n\n"
    id = b"" if event.seq is None else b"id: %d\n" % event.seq
    return b"event: %s\n%sdata: %s\n\n" % (event.name.encode(), id, event.data)


def as_text(event: Event) -> str:
    """Write an event as one WebSocket message: `{"event", "id", "data"}`."""
    told: dict[str, Any] = {"event": event.name or "heartbeat"}
    if event.seq is not None:
        told["id"] = event.seq
    if event.data:
        told["data"] = msgspec.Raw(event.data)
    return msgspec.json.encode(told).decode()
