"""One request to run an actor, as a value."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

import msgspec
from uuid_utils.compat import uuid7

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

DAY = 86_400
FURTHEST = 10 * 365 * DAY
"""Seconds by which a message without a row may be put off, or may expire, at most."""
END = dt.datetime(9999, 1, 1, tzinfo=dt.UTC)
"""Before this a message with a row is due, and expires: Python's calendar ends a year later, and times are added to."""


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


class Gate(msgspec.Struct, frozen=True):
    """What a message has to be admitted to before it starts: at most `slots` at once, `pace` starts per `period` s."""

    name: str
    slots: int | None = None
    pace: int | None = None
    period: float | None = None


class Once(msgspec.Struct, frozen=True, kw_only=True):
    """How long a message's key excludes others, and what happens to those; see `limits.Unique`."""

    until: str = "done"
    seconds: float | None = None
    conflict: str = "skip"
    wait: float | None = None
    max_wait: float | None = None


class Delivery(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What arrived: a doorbell (`durable`, no arguments) or a message with its arguments.

    `retries`: errors so far of a message without a row; `redelivered`: its last worker died; `priority`: 0 to 9.
    """

    id: UUID
    actor: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    headers: dict[str, Any] = {}
    durable: bool = False
    retries: int = 0
    redelivered: bool = False
    queue: str = "default"
    priority: int = 6
    expires_at: dt.datetime | None = None


class Workflow(Protocol):
    """Messages that are sent together, such as a pipeline."""

    async def enqueue(self, where: AsyncSession | AsyncConnection) -> list[Message]:
        """Write them in the transaction of `where`; return the messages, whose ids are the steps'."""

    async def send(self) -> Any:
        """Send them through the broker alone. Raises DurableOnly where only rows can hold them."""

    def __or__(self, following: Any) -> Workflow:
        """Add a step."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One request to run an actor; its id is Celery's task id.

    `args` and `kwargs` hold plain JSON values. `delay` and `expires` are seconds from now, `due_at` a moment (aware);
    at most one of `delay` and `due_at` is set. `headers` cross the queue as flat Celery headers.
    `key`: at most one unfinished durable message of an actor and tenant bears it. `follow`: the specs of the messages
    that its settling puts. `message | other` is a pipeline.
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
    follow: dict[str, Any] | None = None
    gate: Gate | None = None
    once: Once | None = None

    def __or__(self, following: Any) -> Workflow:
        return piped[0](self, following)

    @property
    def task_id(self) -> str:
        """The id as Celery, the logs and the API write it."""
        return str(self.id)


piped: list[Callable[[Message, Any], Workflow]] = []
"""Makes a pipeline of two steps; callboard_workers.actors.workflow, which knows the actors, puts it here."""
