"""What keeps an actor's messages apart: by key, once; by key, the last one; so many at a time; so many per period.

A `key` is a function of the actor's arguments; without one all messages of the actor share a key. Durations are
seconds. Wrong values raise DeclarationError where they are written.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from callboard_workers.errors import DeclarationError
from callboard_workers.message import Gate, Once

Key = Callable[..., Any]

DAY = 86_400.0
MOST = 10_000
"""The highest `concurrency` or `rate` that is taken."""

_RATE = re.compile(r"([1-9][0-9]{0,5})/(?:([1-9][0-9]{0,4}) ?)?(s|m|h|d)")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": DAY}


class Unique(msgspec.Struct, frozen=True, kw_only=True):
    """At most one message per key and tenant `until` it is "done" or has its first "start", or for `seconds`.

    What comes meanwhile is skipped, or raises Duplicate, or replaces the arguments of the one that waits
    (`conflict`: "skip", "raise", "replace"). The key is the row's own: a worker that dies holds nothing.
    """

    key: Key | None = None
    until: str = "done"
    seconds: float | None = None
    conflict: str = "skip"

    def __post_init__(self) -> None:
        faults = _key_faults(self.key)
        if self.until not in {"done", "start"}:
            faults.append(f"until={self.until!r} is neither 'done' nor 'start'")
        if self.conflict not in {"skip", "replace", "raise"}:
            faults.append(f"conflict={self.conflict!r} is none of 'skip', 'replace', 'raise'")
        if self.seconds is not None:
            faults += _seconds_faults("seconds", self.seconds, 366 * DAY)
        if self.conflict == "replace" and (self.until != "start" or self.seconds is not None):
            faults.append("only what has not started can be replaced: give until='start' and no seconds")
        _refuse("Unique", faults)


class Debounce(msgspec.Struct, frozen=True, kw_only=True):
    """The last message of a key wins: it runs when none came for `wait` s, and `max_wait` s after the first at most."""

    wait: float
    max_wait: float | None = None
    key: Key | None = None

    def __post_init__(self) -> None:
        faults = _key_faults(self.key) + _seconds_faults("wait", self.wait, DAY)
        if self.max_wait is not None:
            faults += _seconds_faults("max_wait", self.max_wait, 366 * DAY)
            if not faults and self.max_wait < self.wait:
                faults.append(f"max_wait={self.max_wait:g} s is less than wait={self.wait:g} s")
        _refuse("Debounce", faults)


class Concurrency(msgspec.Struct, frozen=True):
    """At most `limit` messages of a key run at once, in all processes together."""

    limit: int
    key: Key | None = None

    def __post_init__(self) -> None:
        faults = _key_faults(self.key)
        limit: object = self.limit
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MOST:
            faults.append(f"{self.limit!r} is not a whole number from 1 to {MOST}")
        _refuse("Concurrency", faults)


class Rate(msgspec.Struct, frozen=True):
    """At most so many starts per period and key, in all processes together: "10/s", "100/15m", "1000/h"."""

    limit: str
    key: Key | None = None

    def __post_init__(self) -> None:
        faults = _key_faults(self.key)
        found = _RATE.fullmatch(str(self.limit))
        if found is None:
            faults.append(f"{self.limit!r} is no rate; write it as '10/s', '100/15m', '1000/h'")
        elif self.pace > MOST or self.period > DAY:
            faults.append(f"{self.limit!r}: at most {MOST} per period, and a period of at most a day")
        _refuse("Rate", faults)

    @property
    def pace(self) -> int:
        """Starts per period."""
        return int(self.limit.partition("/")[0])

    @property
    def period(self) -> float:
        """Seconds."""
        found = _RATE.fullmatch(self.limit)
        return float(found[2] or 1) * _UNITS[found[3]] if found else 0.0


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """All that one actor declares of this kind."""

    unique: Unique | None = None
    debounce: Debounce | None = None
    concurrency: Concurrency | None = None
    rate: Rate | None = None

    def words(self) -> list[str]:
        """The options that are declared."""
        return [name for name in self.__struct_fields__ if getattr(self, name) is not None]

    def variable(self) -> list[str]:
        """The options whose key is made of the arguments."""
        return [name for name in self.words() if getattr(self, name).key is not None]

    def once(self) -> Once | None:
        """What `unique` or `debounce` ask for."""
        if (debounce := self.debounce) is not None:
            return Once(until="start", conflict="replace", wait=debounce.wait, max_wait=debounce.max_wait)
        if (unique := self.unique) is not None:
            return Once(until=unique.until, seconds=unique.seconds, conflict=unique.conflict)
        return None

    def key(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
        """The key of a message that is to be unique or debounced."""
        option = self.debounce or self.unique
        return None if option is None else _text(option.key, args, kwargs)

    def gate(self, actor: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Gate | None:
        """What a message has to be admitted to."""
        option = self.concurrency or self.rate
        if option is None:
            return None
        return Gate(
            name=f"{actor}:{_text(option.key, args, kwargs)}",
            slots=None if self.concurrency is None else self.concurrency.limit,
            pace=None if self.rate is None else self.rate.pace,
            period=None if self.rate is None else self.rate.period,
        )


def _text(key: Key | None, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    if key is None:
        return "*"
    text = str(key(*args, **kwargs))
    usable = text if text.isprintable() and text else repr(text)
    return usable if len(usable) <= 200 else hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _key_faults(key: object) -> list[str]:
    return [] if key is None or callable(key) else [f"key={key!r} is not a function of the actor's arguments"]


def _seconds_faults(option: str, value: object, most: float) -> list[str]:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
        return [f"{option}={value!r} is not a positive number of seconds up to {most:g}"]
    return []


def _refuse(what: str, faults: list[str]) -> None:
    if faults:
        raise DeclarationError(f"{what}: " + "; ".join(faults))
