"""Declare an actor: a function with a delivery policy, sent as messages and run by workers."""

from __future__ import annotations

import datetime as dt
import functools
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

from callboard_workers.actors.dependencies import dependencies, provide
from callboard_workers.actors.message_settings import extras_of
from callboard_workers.actors.options import Check, middleware_options, policy, priority
from callboard_workers.actors.parameters import Parameters
from callboard_workers.actors.sender import Sender
from callboard_workers.context import Correlation, correlation
from callboard_workers.cron import Cron, Scheduled, request_id, tick_id, timetable
from callboard_workers.errors import DeclarationError, UnknownActor
from callboard_workers.limits import Concurrency, Debounce, Rate, Unique
from callboard_workers.message import Message, Priority
from callboard_workers.middleware.base import declared
from callboard_workers.policy import Backoff, Policy

P = ParamSpec("P")
R = TypeVar("R")

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,199}")


class Registry:
    """The actors of this process by name, aliases included."""

    def __init__(self) -> None:
        self._actors: dict[str, Actor[Any, Any]] = {}
        self._names: dict[str, str] = {}

    def add(self, actor: Actor[Any, Any]) -> None:
        """Register an actor; a name taken by another function is a DeclarationError."""
        for name in (actor.name, *actor.aliases):
            other = self._actors.get(self._names.get(name, ""))
            if other is not None and _place(other) != _place(actor):
                raise DeclarationError(f"actor {name!r} is declared twice: {_place(other)} and {_place(actor)}")
        self._actors[actor.name] = actor
        self._names.update(dict.fromkeys((actor.name, *actor.aliases), actor.name))
        timetable.pop(actor.name, None)
        if actor.cron is not None:
            timetable[actor.name] = Scheduled(actor.cron, actor.at_tick)

    def get(self, name: str) -> Actor[Any, Any]:
        """The actor of this name or alias; raises UnknownActor."""
        try:
            return self._actors[self._names[name]]
        except KeyError:
            raise UnknownActor(name) from None

    def discard(self, name: str) -> None:
        """Forget an actor and its aliases, if there is one of this name."""
        if (known := self._names.get(name)) is not None:
            del self._actors[known]
            timetable.pop(known, None)
            self._names = {alias: actor for alias, actor in self._names.items() if actor != known}

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[Actor[Any, Any]]:
        return iter(tuple(self._actors.values()))

    def __len__(self) -> int:
        return len(self._actors)


registry = Registry()
"""Where `@actor` registers."""


class Actor(Sender[P], Generic[P, R]):
    """A function that runs here when called, and in a worker when sent."""

    def __init__(
        self,
        fn: Callable[P, R],
        *,
        name: str | None = None,
        queue: str = "default",
        aliases: Sequence[str] = (),
        **given: Any,
    ) -> None:
        check = Check(f"actor {getattr(fn, '__qualname__', fn)}")
        functools.update_wrapper(self, fn, updated=())
        self.fn = fn
        self.needs = dependencies(fn)
        self.parameters = Parameters(fn, hidden=tuple(self.needs))
        self.__signature__ = self.parameters.signature
        self.is_async = inspect.iscoroutinefunction(fn)
        self.name = _name(check, "name", _default_name(fn) if name is None else name)
        self.queue = _name(check, "queue", queue)
        self.aliases = tuple(_name(check, "aliases", alias) for alias in aliases)
        self.priority: Priority = priority(check, given.pop("priority", Priority.NORMAL))
        self.cron: Cron | None = self._cron(check, given.pop("cron", None))
        self.extras = extras_of(check, given)
        if self.cron is not None and self.extras is not None and self.extras.limits.debounce is not None:
            check.fault("debounce", "a tick waits for nobody; leave it out beside `cron`")
        known = Policy.__struct_fields__
        self.policy = policy(check, {option: value for option, value in given.items() if option in known})
        self.extra = middleware_options(
            check, {option: value for option, value in given.items() if option not in known}, declared
        )
        """The options that middleware declares, as this actor gives them."""
        waits = None if self.extras is None else self.extras.limits.debounce
        if waits is not None and self.policy.expires is not None and self.policy.expires <= waits.wait:
            check.fault("expires", f"{self.policy.expires:g} s are over before the debounce's wait is")
        if inspect.isasyncgenfunction(fn) or inspect.isgeneratorfunction(fn):
            check.fault("function", "it is a generator; an actor runs to its end and returns")
        check.done()
        self.task: Any = None
        """The Celery task this actor is bound to, once a Celery app knows it."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Just the function; dependencies that are not given are opened for the call and closed after it."""
        missing = {name: need for name, need in self.needs.items() if name not in kwargs}
        if missing:
            return self._call_with(missing, args, kwargs)  # type: ignore[return-value]
        return self.fn(*args, **kwargs)

    async def _call_with(self, missing: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        async with AsyncExitStack() as stack:
            opened = await provide(missing, stack)
            answer: Any = self.fn(*args, **kwargs, **opened)
            return await answer if self.is_async else answer

    def at_tick(self, tick: dt.datetime) -> Message:
        """The message of one firing of this actor's cron: the same id whoever makes it."""
        here = correlation.set(Correlation(request_id=request_id(self.name, tick)))
        try:
            return self.options(id=tick_id(self.name, tick)).message()  # type: ignore[call-arg]
        finally:
            correlation.reset(here)

    def _cron(self, check: Check, value: Any) -> Cron | None:
        if value is None:
            return None
        if not isinstance(value, Cron):
            check.fault("cron", f"{value!r} is not a Cron('minute hour day month weekday', tz=…)")
            return None
        try:
            self.parameters.signature.bind()
        except TypeError as error:
            check.fault("cron", f"a firing gives no arguments, but there is a {error}")
        return value

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Celery's `delay`: blocks; for code that has no event loop. Returns Celery's AsyncResult."""
        plain_args, plain_kwargs = self.parameters.encode(args, kwargs)
        return self._celery().delay(*plain_args, **plain_kwargs)

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Celery's `apply_async`: blocks. Returns Celery's AsyncResult."""
        return self._celery().apply_async(args, kwargs, **options)

    def s(self, *args: Any, **kwargs: Any) -> Any:
        """Celery's signature of this task, for a canvas."""
        return self._celery().s(*args, **kwargs)

    def si(self, *args: Any, **kwargs: Any) -> Any:
        """Celery's immutable signature of this task."""
        return self._celery().si(*args, **kwargs)

    def signature(self, *args: Any, **kwargs: Any) -> Any:
        """Celery's signature with all its options."""
        return self._celery().signature(*args, **kwargs)

    def _celery(self) -> Any:
        if self.extras is not None:
            self.extras.direct(self.name)
        if self.task is None:
            raise RuntimeError(
                f"actor {self.name} is bound to no Celery app: make one with callboard_workers.celery.create_celery"
            )
        return self.task

    def __repr__(self) -> str:
        return f"<actor {self.name}>"


class Declarer(Protocol):
    """What `@actor(...)` returns: it makes an actor of the function below it."""

    def __call__(self, fn: Callable[P, R], /) -> Actor[P, R]: ...


@overload
def actor(fn: Callable[P, R], /) -> Actor[P, R]: ...


@overload
def actor(
    *,
    name: str | None = None,
    queue: str = "default",
    priority: Priority | str = Priority.NORMAL,
    aliases: Sequence[str] = (),
    max_retries: int = 10,
    backoff: Backoff = Backoff(),  # noqa: B008 (frozen)
    retry_when: Callable[[int, Exception], bool] | None = None,
    throws: type[Exception] | tuple[type[Exception], ...] = (),
    max_crashes: int = 3,
    max_snoozes: int = 1_000,
    time_limit: float | dt.timedelta | None = 60.0,
    grace: float | dt.timedelta = 5.0,
    expires: float | dt.timedelta | None = None,
    uncertain: str = "hold",
    result: float | dt.timedelta | None = None,
    on_stop: str = "finish",
    cron: Cron | None = None,
    unique: Unique | bool | None = None,
    debounce: Debounce | None = None,
    concurrency: Concurrency | int | None = None,
    rate: Rate | str | None = None,
    on_success: Actor[Any, Any] | None = None,
    on_dead: Actor[Any, Any] | None = None,
    **options: Any,
) -> Declarer: ...


def actor(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make an actor of a function, `async` or not, and register it.

    Options: `name` (`<slice>.<function>`), `aliases`, `queue`, `priority`; `max_retries`, `backoff`, `retry_when`
    (retries so far, exception), `throws` (final at once); `max_crashes`, `max_snoozes`; `time_limit`, `grace`,
    `expires`, `result` (seconds or timedelta); `uncertain` (`hold` or `resend`); `on_stop` (`finish` or `release`);
    `cron`; `unique`, `debounce`, `concurrency`, `rate`; `on_success`, `on_dead` (other actors); and whatever middleware
    declares.
    Raises DeclarationError, naming every fault. A `def` actor runs in a thread of the worker.
    """
    if fn is None:
        return functools.partial(_declare, options)
    return _declare(options, fn)


def _declare(options: dict[str, Any], fn: Callable[..., Any]) -> Actor[..., Any]:
    if isinstance(fn, Actor) or not callable(fn):
        raise DeclarationError(f"@actor takes a function, not {fn!r}")
    made: Actor[..., Any] = Actor(fn, **options)
    registry.add(made)
    return made


def _default_name(fn: Callable[..., Any]) -> str:
    """`<slice>.<function>`: of `service.emails.actors` the slice is `emails`, of any other module the module itself."""
    parts = str(getattr(fn, "__module__", None) or "actors").split(".")
    if parts[-1] in {"actors", "tasks"} and len(parts) > 1:
        parts.pop()
    return f"{parts[-1].strip('_')}.{getattr(fn, '__name__', 'actor')}"


def _name(check: Check, option: str, value: Any) -> str:
    if not (isinstance(value, str) and _NAME.fullmatch(value)):
        check.fault(option, f"{value!r} is not 1 to 200 letters, digits and _.:-")
    return str(value)


def _place(actor: Actor[Any, Any]) -> str:
    return f"{getattr(actor.fn, '__module__', '?')}.{getattr(actor.fn, '__qualname__', '?')}"
