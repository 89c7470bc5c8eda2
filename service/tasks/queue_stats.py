"""What waits in each queue, what runs, how fast it comes and goes: counted from the ledger, and Redis' lists."""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from callboard_workers.actors.actor import registry
from callboard_workers.message import Priority
from callboard_workers.redis.protocol import list_key, sorted_key

log = structlog.get_logger("service.tasks")

FRESH = 1.0  # seconds that an answer is given again
SHARE = 10  # an answer that took long is given again for so many times as long: nobody can keep Postgres busy
WINDOW = 10.0  # seconds over which arrivals are counted
SKEW = 60.0  # seconds that another machine's clock may be ahead
OLDEST_LOOK = 60.0  # seconds: an earlier look than that tells nothing of the rate now

MOST = 1_000  # tenants whose last look is kept

WAITING = text(
    "SELECT queue, priority, count(*) FILTER (WHERE due_at <= clock_timestamp()) AS due,"
    " count(*) FILTER (WHERE due_at > clock_timestamp()) AS scheduled, 0 AS running,"
    " extract(epoch FROM clock_timestamp() - min(due_at))::float8 AS oldest"
    " FROM messages WHERE tenant_id = :tenant AND state = 'queued' GROUP BY queue, priority"
    " UNION ALL SELECT queue, priority, 0, 0, count(*), NULL"
    " FROM messages WHERE tenant_id = :tenant AND state = 'running' GROUP BY queue, priority"
)
ARRIVED = text(
    "SELECT queue, priority, count(*) AS arrived FROM messages"
    " WHERE tenant_id = :tenant AND id >= :since AND id < :until GROUP BY queue, priority"
)  # a range of UUIDv7; a stock Celery client's random ids lie outside, and are not counted
ALL_WAITING = text("SELECT queue, priority, due, scheduled, running, oldest FROM ledger_depths()")
ALL_ARRIVED = text("SELECT queue, priority, arrived FROM ledger_arrived(:since, :until)")


class Place(NamedTuple):
    """A queue and the number of a priority."""

    queue: str
    priority: int


class Seen(NamedTuple):
    """What is open in one place; `oldest` in seconds."""

    due: int
    scheduled: int
    running: int
    oldest: float | None

    @property
    def open(self) -> int:
        """All that has not ended."""
        return self.due + self.scheduled + self.running


NOTHING = Seen(0, 0, 0, None)


class QueueReport(msgspec.Struct, frozen=True, kw_only=True):
    """One priority of one queue: what is the caller's in it, or, for an operator's key, everybody's.

    `due`: may start now. `scheduled`: wait for their time. `running`: in flight. `oldest_age`: seconds since the first
    of those due was due. `doorbells`: entries of the Redis list that wakes the workers, null without Redis and for
    whoever sees only its own.
    `arrivals`: new ones per second over ten seconds. `departures`: those that ended, per second since the look before,
    null where there was none within a minute.
    """

    queue: str
    priority: str
    due: int
    scheduled: int
    running: int
    oldest_age: float | None
    doorbells: int | None
    arrivals: float
    departures: float | None


class _Look(msgspec.Struct):
    """What was seen at one moment (monotonic seconds and the clock's)."""

    at: float
    clock: float
    seen: dict[Place, Seen]
    reports: list[QueueReport]
    until: float


class Queues:
    """Counts, at most once a second whoever asks; each caller gets the newest answer."""

    def __init__(self, engine: AsyncEngine, redis: Redis, prefix: str = "") -> None:
        self._engine = engine
        self._redis = redis
        self._prefix = prefix
        self._looks: dict[UUID | None, _Look] = {}
        self._lock = asyncio.Lock()

    async def report(self, tenant_id: UUID | None) -> list[QueueReport]:
        """Report each queue and priority where the tenant has anything, and each that an actor uses.

        None stands for everybody. Raises what Postgres does.
        """
        async with self._lock:
            look = self._looks.get(tenant_id)
            if look is None or look.until < time.monotonic():
                if len(self._looks) >= MOST:
                    self._looks.clear()
                look = self._looks[tenant_id] = await self._count(tenant_id, look)
            return look.reports

    async def _count(self, tenant_id: UUID | None, before: _Look | None) -> _Look:
        at, clock = time.monotonic(), time.time()
        if before is not None and at - before.at > OLDEST_LOOK:
            before = None
        async with self._engine.connect() as connection:
            found = await _waiting(connection, tenant_id)
            arrived = await _arrived(connection, tenant_id, clock - WINDOW, clock)
            since = await _arrived(connection, tenant_id, before.clock, clock) if before else []
        seen = dict.fromkeys(declared() | _counts(arrived).keys() | _counts(since).keys(), NOTHING) | _seen(found)
        bells = await self._bells(sorted(seen)) if tenant_id is None else {}
        left = _departures(before, at, seen, _counts(since))
        reports = [_report(place, seen[place], bells, _counts(arrived), left) for place in sorted(seen)]
        now = time.monotonic()
        return _Look(at, clock, seen, reports, now + max(FRESH, (now - at) * SHARE))

    async def _bells(self, places: Sequence[Place]) -> dict[Place, int]:
        """Ask for the length of every list, with what was moved to its tenants' lists; empty without Redis."""
        keys = [list_key(place.queue, place.priority, self._prefix) for place in places]
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.hgetall(sorted_key(self._prefix))
                for key in keys:
                    pipe.llen(key)
                moved, *lengths = await pipe.execute()
            counts = {_text(key): int(count) for key, count in moved.items()}
            return {
                place: length + counts.get(key, 0) for place, key, length in zip(places, keys, lengths, strict=True)
            }
        except (RedisError, OSError) as error:
            log.warning("doorbells_unknown", error=type(error).__name__)
            return {}


def _text(key: str | bytes) -> str:
    return key if isinstance(key, str) else key.decode()


async def _waiting(connection: AsyncConnection, tenant_id: UUID | None) -> Sequence[Any]:
    if tenant_id is None:
        return (await connection.execute(ALL_WAITING)).all()
    return (await connection.execute(WAITING, {"tenant": tenant_id})).all()


async def _arrived(connection: AsyncConnection, tenant_id: UUID | None, since: float, now: float) -> Sequence[Any]:
    within = {"since": first_id(since), "until": first_id(now + SKEW)}
    if tenant_id is None:
        return (await connection.execute(ALL_ARRIVED, within)).all()
    return (await connection.execute(ARRIVED, within | {"tenant": tenant_id})).all()


def declared() -> set[Place]:
    """The queues and priorities of the actors of this process."""
    return {Place(actor.queue, Priority(actor.priority).number) for actor in registry}


def first_id(clock: float) -> UUID:
    """The least UUIDv7 of a moment (seconds since 1970): ids sort by time, so it stands for "since then"."""
    return UUID(int=max(0, int(clock * 1000)) << 80)


def _seen(rows: Iterable[Any]) -> dict[Place, Seen]:
    found: dict[Place, Seen] = {}
    for row in rows:
        place = Place(row.queue, row.priority)
        due, scheduled, running, oldest = found.get(place, NOTHING)
        oldest = row.oldest if row.due else oldest
        found[place] = Seen(due + row.due, scheduled + row.scheduled, running + row.running, oldest)
    return found


def _departures(
    before: _Look | None, at: float, now: Mapping[Place, Seen], came: Mapping[Place, int]
) -> dict[Place, float]:
    """What was there and what came, less what is there now, has ended (or was queued again, which counts against)."""
    if before is None:
        return {}
    took = max(at - before.at, 0.001)
    were = {place: before.seen.get(place, NOTHING).open + came.get(place, 0) for place in now}
    return {place: max(0.0, (were[place] - seen.open) / took) for place, seen in now.items()}


def _counts(rows: Iterable[Any]) -> dict[Place, int]:
    return {Place(row.queue, row.priority): row.arrived for row in rows}


def _report(
    place: Place,
    seen: Seen,
    bells: Mapping[Place, int],
    arrivals: Mapping[Place, int],
    departures: Mapping[Place, float],
) -> QueueReport:
    left = departures.get(place)
    return QueueReport(
        queue=place.queue,
        priority=Priority.of(place.priority).value,
        due=seen.due,
        scheduled=seen.scheduled,
        running=seen.running,
        oldest_age=None if seen.oldest is None else round(max(seen.oldest, 0.0), 3),
        doorbells=bells.get(place),
        arrivals=round(arrivals.get(place, 0) / WINDOW, 1),
        departures=None if left is None else round(left, 1),
    )
