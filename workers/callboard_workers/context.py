"""Where am I? The request an action belongs to, and the attempt that is running."""

from __future__ import annotations

import asyncio
import contextvars
import datetime as dt
import time
from collections.abc import Awaitable, Coroutine, Generator, Mapping, MutableMapping
from contextvars import ContextVar, Token
from typing import Any, Protocol
from uuid import UUID

import msgspec
import structlog

from callboard_workers.errors import FenceUnheard, WorkersError


class Correlation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What ties an action to its origin, and what the messages it makes inherit.

    Set for each request by the API, for each attempt by the worker.
    """

    request_id: str | None = None
    tenant_id: UUID | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    baggage: str | None = None
    parent_id: str | None = None
    root_id: str | None = None

    def headers(self) -> dict[str, str]:
        """As flat message headers; what is unset is left out."""
        found: dict[str, str] = msgspec.to_builtins(self)
        return found

    @classmethod
    def of(cls, headers: dict[str, Any]) -> Correlation:
        """Read back from message headers; what is missing or malformed is left out."""
        texts = {name: value for name in _TEXTS if isinstance(value := headers.get(name), str)}
        return cls(tenant_id=_uuid(headers.get("tenant_id")), **texts)


_TEXTS = tuple(name for name in Correlation.__struct_fields__ if name != "tenant_id")

_origin: ContextVar[Correlation] = ContextVar("workers.correlation", default=Correlation())  # noqa: B039 (frozen)


class Origin:
    """Reads and is set like a ContextVar. Inside an attempt it is what the attempt's messages inherit, made when asked
    for: few attempts ask."""

    def get(self) -> Correlation:
        """Where the current action comes from."""
        mark, context = _origin.get(), running.get()
        return mark if context is None or mark is not context.outer else context.correlation()

    def set(self, value: Correlation) -> Token[Correlation]:
        """From here on, in this context, actions come from `value`."""
        return _origin.set(value)

    def reset(self, token: Token[Correlation]) -> None:
        """As before the `set` that gave the token."""
        _origin.reset(token)


correlation = Origin()


class Marks(Protocol):
    """What an attempt may note about its message while it runs; the ledger for a durable one."""

    async def fence(self, detail: Mapping[str, Any] | None = None) -> None: ...

    def progress(self, done: int, total: int | None, note: str) -> Coroutine[Any, Any, None]: ...


class Ending(Protocol):
    """How an attempt is ended from outside, when its own task does not let go."""

    def leave_behind(self) -> None: ...


class Watch(Protocol):
    """What looks to it that an attempt ends; callboard_workers.common.deadlines.Deadlines."""

    def stopping(self, context: Context) -> None: ...

    def pause(self, context: Context) -> float | None: ...

    def resume(self, context: Context, left: float | None) -> None: ...


class Unmarked:
    """The marks of a message without a row: there is nobody to ask and nowhere to note."""

    async def fence(self, detail: Mapping[str, Any] | None = None) -> None:
        return

    async def progress(self, done: int, total: int | None, note: str) -> None:
        return


UNMARKED = Unmarked()

PATIENCE = 30.0
"""Seconds that a `def` actor waits for the loop of its worker."""


class Finished:
    """Awaited, it returns at once."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


DONE = Finished()


class Context:
    """The running attempt, as its actor sees it through `current()`."""

    __slots__ = (
        "__weakref__",
        "_inherited",
        "_origin",
        "actor",
        "alarm",
        "arguments",
        "attempt",
        "cancelled",
        "crashes",
        "deadline",
        "deadlines",
        "detail",
        "durable",
        "ending",
        "epoch",
        "error",
        "expired",
        "expires_at",
        "fenced",
        "headers",
        "id",
        "loop",
        "marks",
        "outer",
        "parent_id",
        "priority",
        "queue",
        "reason",
        "redelivered",
        "request_id",
        "snoozes",
        "spawned",
        "started",
        "state",
        "task",
        "tenant_id",
        "waited",
        "written_off",
    )

    def __init__(
        self,
        *,
        id: UUID,
        actor: Any,
        queue: str,
        priority: int = 6,
        attempt: int = 1,
        crashes: int = 0,
        snoozes: int = 0,
        epoch: int = 0,
        durable: bool = False,
        redelivered: bool = False,
        headers: dict[str, Any] | None = None,
        waited: float | None = None,
        expires_at: dt.datetime | None = None,
        marks: Marks | None = None,
    ) -> None:
        self.id = id
        self.actor = actor
        self.queue = queue
        self.priority = priority
        """In Celery's terms: 0, the most urgent, to 9."""
        self.attempt = attempt
        self.crashes = crashes
        self.snoozes = snoozes
        self.epoch = epoch
        self.durable = durable
        self.redelivered = redelivered
        self.headers = headers or {}
        self.waited = waited
        self.expires_at = expires_at
        self.marks: Marks = marks or UNMARKED
        self._origin = origin = Correlation.of(self.headers)
        self.request_id = origin.request_id
        self.tenant_id = origin.tenant_id
        self.parent_id = origin.parent_id
        self.deadline: float | None = None
        self.started = time.monotonic()
        self.state: dict[str, Any] = {}
        self.detail: dict[str, Any] = {}
        self.fenced = False
        self.error: BaseException | None = None
        self.reason: str | None = None
        self.arguments: tuple[Any, Any] = ((), {})
        self.loop: asyncio.AbstractEventLoop | None = None
        """The worker's loop, for an attempt that runs in a thread."""
        self.cancelled = False
        """Whether this attempt was asked to stop; a `def` actor looks at it now and then."""
        self.expired = False
        """Whether that was because of its time limit."""
        self.written_off = False
        """Whether its outcome was settled without waiting for it: nothing it does counts any more."""
        self.task: asyncio.Task[Any] | None = None
        self.deadlines: Watch | None = None
        self.alarm: int | asyncio.TimerHandle | None = None
        self.ending: Ending | None = None
        self.outer: Correlation | None = None
        self.spawned: list[asyncio.Task[Any]] | None = None
        """The tasks it has started, where a worker keeps an eye on them."""
        self._inherited: Correlation | None = None

    @property
    def root_id(self) -> str:
        """The first message of the line this one comes from."""
        return self._origin.root_id or str(self.id)

    @property
    def log(self) -> structlog.stdlib.BoundLogger:
        """A logger named after the actor; every line bears the ids of the attempt (`attempt_ids`)."""
        bound: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(self.actor.name)
        return bound

    def cancel(self, reason: str | None = None) -> None:
        """Mark the attempt as asked to stop, and why; the first reason given stands. Its grace begins."""
        self.reason = self.reason or reason
        if not self.cancelled:
            self.cancelled = True
            if self.deadlines is not None:
                self.deadlines.stopping(self)

    def release_error(self) -> None:
        """Drop the exception: its traceback holds the frames of the attempt, and one of them holds this context.

        Without that, each failed attempt keeps its local variables until the garbage collector runs.
        """
        self.error = None

    @property
    def remaining(self) -> float | None:
        """Seconds until the time limit; None if there is none."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def fence(self, detail: Mapping[str, Any] | None = None) -> Awaitable[None]:
        """Announce the point of no return: from here on, only a definite answer makes this message run again.

        `detail` (JSON values) is stored on the message's row by the same statement (column `fence_detail`): what must
        be known however the attempt ends. A message without a row stores nothing.

        `await` it; a `def` actor calls it, and it returns when it is done. Raises LeaseLost when the message was
        canceled or is no longer ours: then nothing may be done to the world.
        """
        return self._here(self._fence(detail))

    def progress(self, done: int, total: int | None = None, note: str = "") -> Awaitable[None]:
        """Note how far the attempt is, and what it is at, for whoever polls.

        `await` it; a `def` actor calls it, and it returns when it is done.
        """
        return self._here(self.marks.progress(done, total, note))

    async def _fence(self, detail: Mapping[str, Any] | None) -> None:
        await self.marks.fence(detail)
        self.fenced = True

    def _here(self, work: Coroutine[Any, Any, None]) -> Awaitable[None]:
        """The work itself; in the thread of a `def` actor it is done on the attempt's loop before this returns."""
        here = asyncio._get_running_loop()
        if self.loop is None or here is self.loop:
            return work
        doing = asyncio.run_coroutine_threadsafe(work, self.loop)
        if here is not None:  # the actor runs a loop of its own in its thread
            return asyncio.wrap_future(doing)
        try:
            doing.result(PATIENCE)
        except TimeoutError as error:
            doing.cancel()
            raise FenceUnheard(f"message {self.id}: the worker's loop did not answer in {PATIENCE:g} s") from error
        return DONE

    def report(self, **detail: Any) -> None:
        """Keep JSON values with the attempt and, once it ends, with the message's outcome."""
        self.detail.update(detail)

    def ids(self) -> dict[str, object]:
        """What log lines of this attempt bear."""
        ids: dict[str, object] = {"task_id": str(self.id), "task_name": self.actor.name, "attempt": self.attempt}
        if self.request_id is not None:
            ids["request_id"] = self.request_id
        if self.tenant_id is not None:
            ids["tenant"] = str(self.tenant_id)
        return ids

    def correlation(self) -> Correlation:
        """What the messages made in this attempt inherit."""
        if self._inherited is None:
            self._inherited = msgspec.structs.replace(self._origin, parent_id=str(self.id), root_id=self.root_id)
        return self._inherited


running: ContextVar[Context | None] = ContextVar("callboard_workers.context", default=None)


def enter(context: Context) -> Token[Context | None]:
    """From here on, in this context, `current()` and `correlation.get()` answer for this attempt."""
    context.outer = _origin.get()
    return running.set(context)


def of_nobody() -> contextvars.Context:
    """A copy of this context in which no attempt runs, for no request: for a task that goes on to serve others."""
    found = contextvars.copy_context()
    found.run(running.set, None)
    found.run(_origin.set, Correlation())
    return found


def attempt_ids(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: every line logged inside an attempt, or for a request, bears its ids; nothing is bound."""
    context, origin = running.get(), _origin.get()
    if context is not None:
        for name, value in context.ids().items():
            event.setdefault(name, value)
    else:
        if origin.request_id is not None:
            event.setdefault("request_id", origin.request_id)
        if origin.tenant_id is not None:
            event.setdefault("tenant", str(origin.tenant_id))
    return event


def current() -> Context:
    """The attempt this code runs in; raises WorkersError outside of one."""
    if (context := running.get()) is None:
        raise WorkersError("current() has an answer only inside an actor: in a test, use run_now()")
    return context


def _uuid(value: Any) -> UUID | None:
    if isinstance(value, UUID):
        return value
    try:
        return UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None
