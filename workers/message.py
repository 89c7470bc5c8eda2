"""One request to run an actor, as a value."""

from __future__ import annotations

import datetime as dt
import enum
from typing import Any
from uuid import UUID

import msgspec
from uuid_utils.compat import uuid7


class Priority(enum.StrEnum):
    """How urgent a message is. Names, because on Redis Celery's number 0 is the *highest*."""

    CRITICAL = "critical"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    @property
    def number(self) -> int:
        """The priority in Celery's terms on Redis: 0 (first) to 9 (last)."""
        return _NUMBERS[self]

    @classmethod
    def of(cls, number: int) -> Priority:
        """The name for Celery's number: the nearest one that is at least as urgent."""
        return next((name for name in reversed(cls) if _NUMBERS[name] <= number), cls.CRITICAL)


_NUMBERS = {Priority.CRITICAL: 0, Priority.HIGH: 3, Priority.NORMAL: 6, Priority.LOW: 9}


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One request to run an actor; its id is Celery's task id.

    `args` and `kwargs` hold plain JSON values. `delay` and `expires` are seconds from now, `due_at` a moment (aware);
    at most one of `delay` and `due_at` is set. `headers` cross the queue as flat Celery headers.
    `key`: at most one unfinished durable message of an actor and tenant bears it.
    """

    actor: str
    id: UUID = msgspec.field(default_factory=uuid7)
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    queue: str = "default"
    priority: Priority = Priority.NORMAL
    delay: float | None = None
    due_at: dt.datetime | None = None
    expires: float | None = None
    tenant_id: UUID | None = None
    key: str | None = None
    headers: dict[str, str] = {}
    max_crashes: int = 3
    uncertain: str = "hold"

    @property
    def task_id(self) -> str:
        """The id as Celery, the logs and the API write it."""
        return str(self.id)
