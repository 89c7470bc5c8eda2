"""Follows one feed from a number on: what SSE and WebSocket both send.

Nothing is queued for a reader. It takes page after page from Postgres at its own pace, so a slow one costs a page of
memory and nobody else any time; one that falls far behind is told so and comes back for the rest.
"""

from collections.abc import AsyncGenerator
from time import monotonic
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from service.notifications import feed
from service.notifications.feed import FeedCounts, Slice
from service.notifications.live import Live, Seat

PAGE = 20  # items read at once: what a reader that does not read keeps in memory
BEHIND = 1_000  # items that may wait for somebody who had them all before
QUIET = 15.0  # seconds after which an event without a name keeps the line open
AGE = 3_600.0  # seconds after which a stream ends, so that a revoked key does not follow for ever


class Event(msgspec.Struct, frozen=True):
    """One event: its name, its data as JSON, and the number to come back with; heartbeats have no name."""

    name: str
    data: bytes = b""
    seq: int | None = None


async def follow(live: Live, seat: Seat, seq: int, *, age: float = AGE) -> AsyncGenerator[list[Event], None]:
    """Give what comes after `seq`, some events at a time, until the caller or the process goes.

    `ready` first; then a `notification` for each item in order; `counts` when something was marked elsewhere; an
    event without a name to keep the line open; `lagged` before the end of a stream whose reader is far behind.
    """
    engine = live.runtime.engine
    if engine is None:
        return
    until, said = monotonic() + age, monotonic()
    counted = await live.runtime.to_the_end(_counts(live, engine, seat.no))
    yield [Event("ready", msgspec.json.encode({"seq": seq, **msgspec.to_builtins(counted)}), seq)]
    level = False
    while not (live.stopping or seat.gone) and monotonic() < until:
        seat.ready()
        found = await live.runtime.to_the_end(_look(live, engine, seat.no, seq))
        if found is None:
            return
        if level and found.last_seq - seq > BEHIND:
            yield [Event("lagged", msgspec.json.encode({"seq": seq, "last_seq": found.last_seq}))]
            return
        if found.items:
            said = monotonic()
            seq, more = found.items[-1].seq, found.last_seq > found.items[-1].seq
            events = [Event("notification", msgspec.json.encode(item), item.seq) for item in found.items]
            del found  # who takes long to read this keeps it once, not twice
            yield events
            del events
            if more:
                continue
        level = True
        if seat.marked:
            seat.marked = False
            counted = await live.runtime.to_the_end(_counts(live, engine, seat.no))
            yield [Event("counts", msgspec.json.encode(counted))]
        await seat.wait(live.calm)
        if monotonic() - said >= QUIET:
            said = monotonic()
            yield [Event("")]


async def _look(live: Live, engine: AsyncEngine, no: int, seq: int) -> Slice | None:
    async with live.looks:
        return await feed.after(engine, no, seq, PAGE)


async def _counts(live: Live, engine: AsyncEngine, no: int) -> FeedCounts:
    async with live.looks, engine.connect() as connection:
        return await feed.counts(connection, no)


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
