"""Everything that can go wrong in the library, and the exceptions an actor raises to say how an attempt ended."""

from __future__ import annotations

from typing import Any
from uuid import UUID


class WorkersError(Exception):
    """Base of every error of this package."""


class DeclarationError(WorkersError, TypeError):
    """An actor was declared wrongly; names every fault and, where one is likely, what was meant."""


class UnknownActor(WorkersError, LookupError):
    """No actor of this name is registered in this process."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"no actor is named {name!r}: import the module that declares it, or add the name to `aliases`"
        )
        self.name = name


class BrokerUnavailable(WorkersError):
    """The broker did not take a message in time; a durable message follows by itself, a direct one was not sent."""


class Overloaded(WorkersError):
    """A bounded buffer is full: more work is waiting than the process may hold."""


class Duplicate(WorkersError):
    """An unfinished message, or one of the last `seconds`, bears this message's key; `id` is that one's."""

    def __init__(self, actor: str, key: str, id: UUID | None) -> None:
        super().__init__(f"{actor}: key {key!r} is taken by message {id}")
        self.id = id


class DurableOnly(WorkersError, TypeError):
    """What was asked for needs a row in the ledger: enqueue it."""


class NoRuntime(WorkersError, RuntimeError):
    """The running event loop has no Runtime: `await Runtime(...).start()` was not called on it."""


class LeaseLost(WorkersError):
    """This attempt no longer owns its message: stop before the point of no return and leave no trace."""


class FenceUnheard(LeaseLost):
    """Postgres did not say whether the fence was passed: nothing was done, and the message is due again soon."""


class WorkerStopping(LeaseLost):
    """The worker stops, so it passes no fence any more: nothing was done, and the message is given back."""


class TimeLimitExceeded(WorkersError):
    """The attempt ran longer than its `time_limit` (seconds)."""

    def __init__(self, limit: float) -> None:
        super().__init__(f"did not finish within its time limit of {limit:g} s")
        self.limit = limit


class BadArguments(WorkersError, ValueError):
    """A message's arguments do not fit the actor's signature; names every fault. Never retried."""


class BadResult(WorkersError, ValueError):
    """What an actor returned is not what it declares; names every fault. Never retried: the work itself was done."""


class Verdict(WorkersError):
    """Base of the exceptions by which an actor says how its attempt ended."""

    def __init__(self, reason: str = "", detail: dict[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


class Retry(Verdict):
    """Try again, counted as an attempt, in `delay` seconds or after the backoff. After a fence: a definite no."""

    def __init__(self, delay: float | None = None, reason: str = "", detail: dict[str, Any] | None = None) -> None:
        super().__init__(reason, detail)
        self.delay = delay


class Snooze(Verdict):
    """Put the message off for `delay` seconds; counts neither as an attempt nor as a crash."""

    def __init__(self, delay: float, reason: str = "", detail: dict[str, Any] | None = None) -> None:
        super().__init__(reason, detail)
        self.delay = delay


class Dead(Verdict):
    """Give up for good: the message becomes a dead letter. After a fence: a definite no."""

    def __init__(self, reason: str, detail: dict[str, Any] | None = None) -> None:
        super().__init__(reason, detail)


class Uncertain(Verdict):
    """The side effect may or may not have happened; nobody can know. Handled by the actor's `uncertain` policy."""

    def __init__(self, reason: str, detail: dict[str, Any] | None = None) -> None:
        super().__init__(reason, detail)
