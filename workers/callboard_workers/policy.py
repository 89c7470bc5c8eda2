"""What is to become of a message after an attempt: a pure decision.

The policy is what an actor's author declared; the outcome is what happens now. Durations are seconds.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec

from callboard_workers.errors import (
    BadArguments,
    BadResult,
    Dead,
    FenceUnheard,
    LeaseLost,
    Retry,
    Snooze,
    Uncertain,
    Verdict,
)

Failure = dict[str, str]
"""An error as it is stored: `{type, message}`; the ledger adds `at`."""

UNHEARD = 2.0
"""Seconds, more or less, until a message is due again whose fence Postgres did not answer."""

MESSAGE_LIMIT = 2_000
"""Characters of an error's message that are kept."""


class Backoff(msgspec.Struct, frozen=True):
    """Full jitter: before retry n, anything from nothing to `min * 2 ** (n - 1)`, never above `max` seconds."""

    min: float = 1.0
    max: float = 3600.0

    def ceiling(self, retry: int) -> float:
        """The longest wait before the `retry`-th retry (1 is the first)."""
        return min(self.max, self.min * 2.0 ** min(retry - 1, 62))

    def delay(self, retry: int, uniform: Callable[[], float] = random.random) -> float:
        """A wait in seconds; `uniform` answers with a number from 0 to 1."""
        return self.ceiling(retry) * uniform()


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """How an actor's messages are delivered. Durations are seconds; None means without limit."""

    max_retries: int = 10
    backoff: Backoff = Backoff()
    throws: tuple[type[Exception], ...] = ()
    retry_when: Callable[[int, Exception], bool] | None = None
    max_crashes: int = 3
    max_snoozes: int = 1_000
    time_limit: float | None = 60.0
    grace: float = 5.0
    expires: float | None = None
    uncertain: str = "hold"
    result: float | None = None
    on_stop: str = "finish"


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """What every outcome may carry: the actor's report, a reason, the error."""

    reason: str = ""
    detail: dict[str, Any] | None = None
    error: Failure | None = None
    definite: bool = False
    """An explicit answer that the side effect did not happen, also after the fence."""


class Done(Ended, frozen=True, kw_only=True, tag="done"):
    """Finished; `result` is kept only where the actor asks for it."""

    result: Any = None


class RetryAt(Ended, frozen=True, kw_only=True, tag="retry"):
    """Ended in an error; runs again in `delay` seconds."""

    delay: float


class Snoozed(Ended, frozen=True, kw_only=True, tag="snooze"):
    """Put off for `delay` seconds; nothing went wrong."""

    delay: float


class DeadLetter(Ended, frozen=True, kw_only=True, tag="dead"):
    """Given up; kept, explained, requeueable. `expected`: the actor listed this error in `throws`."""

    expected: bool = False


class Expired(Ended, frozen=True, kw_only=True, tag="expired"):
    """Not started in time, so not run at all."""


class Unknown(Ended, frozen=True, kw_only=True, tag="uncertain"):
    """The point of no return was passed and the answer is missing."""


class Canceled(Ended, frozen=True, kw_only=True, tag="canceled"):
    """Stopped because somebody asked for it."""


class Ignored(Ended, frozen=True, kw_only=True, tag="ignored"):
    """Not ours, or no longer: nothing was, and nothing is to be, done about it."""


Outcome = Done | RetryAt | Snoozed | DeadLetter | Expired | Unknown | Canceled | Ignored


def word(outcome: Outcome) -> str:
    """The outcome's one word, as logs, metrics and message_attempts have it."""
    return str(outcome.__struct_config__.tag)


def failure(error: BaseException) -> Failure:
    """An error as it is stored."""
    text = str(error).replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
    return {"type": type(error).__name__, "message": text[:MESSAGE_LIMIT]}


def decide(  # noqa: PLR0911 (one answer per kind of error)
    policy: Policy,
    error: BaseException,
    *,
    attempts: int = 0,
    snoozes: int = 0,
    fenced: bool = False,
    uniform: Callable[[], float] = random.random,
) -> Outcome:
    """What becomes of an attempt that ended in `error`, after `attempts` errors and `snoozes` snoozes before it."""
    if isinstance(error, FenceUnheard):  # whatever the row says now, nothing was done: no doubt, and no error counted
        delay = UNHEARD * (0.5 + uniform())
        return Snoozed(
            delay=delay, reason="the ledger did not answer at the fence", error=failure(error), definite=True
        )
    if isinstance(error, LeaseLost):
        return Ignored(reason=str(error) or "lease lost", error=failure(error))
    if isinstance(error, Uncertain):
        return Unknown(reason=error.reason, detail=error.detail, error=failure(error))
    if isinstance(error, Verdict):
        return _verdict(policy, error, attempts, snoozes, uniform)
    found = failure(error)
    if fenced:
        return Unknown(reason="the attempt failed past the point of no return", error=found)
    if isinstance(error, BadArguments):
        return DeadLetter(reason="arguments do not fit", error=found, definite=True)
    if isinstance(error, BadResult):
        return DeadLetter(reason="the result does not fit", error=found, definite=True)
    if isinstance(error, policy.throws):
        return DeadLetter(reason="the actor throws it", error=found, expected=True, definite=True)
    if not _retries(policy, error, attempts):
        return DeadLetter(reason=f"gave up after {attempts + 1} attempts", error=found, definite=True)
    return RetryAt(delay=policy.backoff.delay(attempts + 1, uniform), error=found, definite=True)


def _verdict(
    policy: Policy, error: Verdict, attempts: int, snoozes: int, uniform: Callable[[], float]
) -> RetryAt | Snoozed | DeadLetter:
    shared: dict[str, Any] = {"detail": error.detail, "error": failure(error), "definite": True}
    if isinstance(error, Snooze):
        if snoozes < policy.max_snoozes:
            return Snoozed(delay=max(0.0, error.delay), reason=error.reason, detail=error.detail, definite=True)
        return DeadLetter(reason=f"snoozed {snoozes} times: {error.reason}", **shared)
    if isinstance(error, Retry) and attempts < policy.max_retries:
        delay = policy.backoff.delay(attempts + 1, uniform) if error.delay is None else max(0.0, error.delay)
        return RetryAt(delay=delay, reason=error.reason, **shared)
    if isinstance(error, Dead):
        return DeadLetter(reason=error.reason, expected=True, **shared)
    return DeadLetter(reason=f"gave up after {attempts + 1} attempts: {error.reason}", **shared)


def _retries(policy: Policy, error: BaseException, attempts: int) -> bool:
    if policy.retry_when is not None:
        return isinstance(error, Exception) and policy.retry_when(attempts, error)
    return attempts < policy.max_retries
