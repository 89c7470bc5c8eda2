"""When an actor runs by the calendar: five-field cron expressions in a time zone."""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import re
from collections.abc import Callable, Iterator
from itertools import islice
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim, CronSimError

from callboard_workers.errors import DeclarationError
from callboard_workers.message import Message

_ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}")

MISSED = ("latest", "all", "skip")

LATE = 60.0
"""Seconds after its tick at which a firing still counts as in time, where `missed="skip"`."""

MOST = 100
"""Missed ticks that are made up for at once; the rest follow."""


class Cron(msgspec.Struct, frozen=True):
    """Minute, hour, day of month, month, day of week, as Debian's cron reads them, in the time zone `tz`.

    DST as in Debian's cron: a fixed time that the clock skips fires when the clock has jumped, one that comes twice
    fires the first time; `*` and `*/n` follow real time. `missed`: of the ticks while nobody was there, the `latest`
    fires late, or `all` do, or none (`skip`: only what is less than a minute late). Raises DeclarationError.
    """

    expression: str
    tz: str = "UTC"
    missed: str = "latest"

    def __post_init__(self) -> None:
        if faults := [*_expression_faults(self.expression), *_zone_faults(self.tz), *_missed_faults(self.missed)]:
            raise DeclarationError(f"Cron({self.expression!r}): " + "; ".join(faults))

    def ticks(self, after: dt.datetime) -> Iterator[dt.datetime]:
        """The moments it fires at, from `after` (aware, excluded) on, in UTC."""
        for tick in CronSim(self.expression, after.astimezone(ZoneInfo(self.tz))):
            if (moment := tick.astimezone(dt.UTC)) > after:
                yield moment

    def latest(self, now: dt.datetime) -> dt.datetime | None:
        """The last moment it fired at, `now` (aware) included, in UTC."""
        # cronsim counts the present second when it is told that a part of it is over
        local = now.astimezone(ZoneInfo(self.tz)).replace(microsecond=1)
        for tick in CronSim(self.expression, local, reverse=True):
            if (moment := tick.astimezone(dt.UTC)) <= now:
                return moment
        return None

    def due(self, last: dt.datetime, now: dt.datetime) -> list[dt.datetime]:
        """The ticks after `last` that are to fire at `now`, oldest first."""
        if _next(self, last) > now:
            return []
        if self.missed == "all":
            return [tick for tick in islice(self.ticks(last), MOST) if tick <= now]
        latest = self.latest(now)
        if latest is None or latest <= last:
            return []
        late = (now - latest).total_seconds()
        return [] if self.missed == "skip" and late > LATE else [latest]


_NEVER = dt.datetime.max.replace(tzinfo=dt.UTC)


@functools.lru_cache(maxsize=1_000)
def _next(cron: Cron, last: dt.datetime) -> dt.datetime:
    return next(cron.ticks(last), _NEVER)


def tick_id(name: str, tick: dt.datetime) -> UUID:
    """The message id of one firing: the same wherever it is made, a UUIDv7 of the tick's millisecond."""
    moment = int(tick.timestamp() * 1_000).to_bytes(6, "big")
    rest = hashlib.sha256(f"{name}\n{tick.astimezone(dt.UTC).isoformat()}".encode()).digest()[:10]
    number = int.from_bytes(moment + rest, "big")
    number = number & ~(0xF << 76) | 7 << 76
    return UUID(int=number & ~(0x3 << 62) | 2 << 62)


def request_id(name: str, tick: dt.datetime) -> str:
    """What ties together everything that one firing causes."""
    return f"cron:{name}:{tick.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"


class Scheduled(msgspec.Struct, frozen=True):
    """An actor with a cron; `make` gives the message of a tick."""

    cron: Cron
    make: Callable[[dt.datetime], Message]


timetable: dict[str, Scheduled] = {}
"""The actors of this process that run by the calendar, by name."""


def _expression_faults(expression: object) -> list[str]:
    if not isinstance(expression, str):
        return ["the expression is not text"]
    fields = expression.split()
    if len(fields) != 5:
        hint = " (names such as @daily are not taken)" if expression.startswith("@") else ""
        return [f"{len(fields)} fields; minute, hour, day of month, month, day of week are expected{hint}"]
    try:
        first = next(CronSim(expression, dt.datetime(2024, 1, 1, tzinfo=dt.UTC)), None)
    except (CronSimError, ValueError, AssertionError) as error:
        return [str(error) or "it cannot be read"]
    return [] if first is not None else ["it never comes"]


def _zone_faults(tz: object) -> list[str]:
    fault = f"tz={tz!r} is no time zone; names are such as 'Europe/Berlin'"
    if not (isinstance(tz, str) and _ZONE.fullmatch(tz)):
        return [fault]
    try:
        ZoneInfo(tz)
    except (OSError, ValueError, LookupError):
        return [fault]
    return []


def _missed_faults(missed: object) -> list[str]:
    return [] if missed in MISSED else [f"missed={missed!r} is none of {', '.join(MISSED)}"]
