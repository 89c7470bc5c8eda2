"""The options an actor may declare, checked where they are written."""

from __future__ import annotations

import datetime as dt
import difflib
import numbers
from collections.abc import Mapping
from typing import Any

from callboard_workers.errors import DeclarationError
from callboard_workers.message import Priority
from callboard_workers.policy import Backoff, Policy

DAY = 86_400
HORIZON = 400 * DAY
"""The longest an actor's own `expires` and `result` may be, in seconds: more is a mistake of units."""
HINTS = {
    "actor_name": "use `name`",
    "queue_name": "use `queue`",
    "min_backoff": "use `backoff=Backoff(min=…)`, in seconds (Dramatiq's are milliseconds)",
    "max_backoff": "use `backoff=Backoff(max=…)`, in seconds (Dramatiq's are milliseconds)",
    "max_age": "use `expires`, in seconds (Dramatiq's max_age is milliseconds)",
    "store_results": "use `result=` seconds to keep the return value",
    "result_ttl": "use `result=` seconds to keep the return value (Dramatiq's are milliseconds)",
    "notify_shutdown": "it always is: look at `current().cancelled`, or let the cancellation through",
    "broker": "the broker belongs to the process, not to the actor",
    "autoretry_for": "every exception is retried; name the final ones in `throws`",
    "retry_backoff": "use `backoff=Backoff(min=…, max=…)`",
    "retry_backoff_max": "use `backoff=Backoff(max=…)`",
    "retry_jitter": "there is always full jitter",
    "retry_kwargs": "use `max_retries` and `backoff`",
    "default_retry_delay": "use `backoff`, or raise Retry(delay)",
    "countdown": "use `.options(delay=…)` when sending",
    "soft_time_limit": "use `time_limit`: the actor is cancelled then, and written off `grace` seconds later",
    "acks_late": "messages are always acknowledged after they ran",
    "reject_on_worker_lost": "they always are; `max_crashes` counts them",
    "ignore_result": "results are not kept unless `result=` says for how many seconds",
    "bind": "use `current()`",
    "on_failure": "use `on_dead=actor`, which is called when a message is given up",
    "rate_limit": 'use `rate="10/s"`: it holds for all workers together',
    "pipe_target": "use `message | other`",
}

OWN = ("cron", "unique", "debounce", "concurrency", "rate", "on_success", "on_dead")
"""Options that are neither the policy's nor a middleware's."""

DURATIONS = ("time_limit", "grace", "expires", "result")
COUNTS = ("max_retries", "max_crashes", "max_snoozes")


class Check:
    """Collects the faults of one declaration, to name them all at once."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.faults: list[str] = []

    def fault(self, option: str, text: str) -> None:
        self.faults.append(f"{option}: {text}")

    def seconds(self, option: str, value: Any) -> float | None:
        """A duration as seconds; more than a day is taken for milliseconds, and refused."""
        if value is None:
            return None
        if isinstance(value, dt.timedelta):
            value = value.total_seconds()
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 < float(value) < float("inf"):
            self.fault(option, f"{value!r} is not a positive number of seconds or a timedelta")
            return None
        if option in {"time_limit", "grace"} and float(value) > DAY:
            self.fault(
                option, f"{value!r} s is more than a day; durations are seconds, not milliseconds as in Dramatiq"
            )
        if option in {"expires", "result"} and float(value) > HORIZON:
            self.fault(option, f"{value!r} s is more than 400 days")
        return float(value)

    def unknown(self, option: str, known: Mapping[str, Any]) -> None:
        near = difflib.get_close_matches(option, [*known], n=1, cutoff=0.7)
        hint = HINTS.get(option) or (f"did you mean `{near[0]}`?" if near else "no middleware declares it")
        self.fault(option, f"unknown option: {hint}")

    def done(self) -> None:
        if self.faults:
            raise DeclarationError(f"{self.subject}: " + "; ".join(self.faults))


def policy(check: Check, given: Mapping[str, Any]) -> Policy:
    """The policy that the options describe; faults go to `check`."""
    values = dict(given)
    for option in DURATIONS:
        if option in values:
            values[option] = check.seconds(option, values[option])
    if values.get("grace", 0.0) is None:
        check.fault("grace", "may not be None: a slot is always written off in the end")
    for option in COUNTS:
        value = values.get(option, 0)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 32_767:
            check.fault(option, f"{value!r} is not a whole number from 0 to 32767")
    if values.get("max_crashes") == 0:
        check.fault("max_crashes", "0 would bury every message before its first attempt; 1 is the least")
    values["throws"] = _throws(check, values.get("throws", ()))
    _backoff(check, values.get("backoff", Backoff()))
    if values.get("retry_when") is not None and not callable(values["retry_when"]):
        check.fault("retry_when", "is not a function of (retries, exception)")
    if values.get("uncertain", "hold") not in {"hold", "resend"}:
        check.fault("uncertain", f"{values['uncertain']!r} is neither 'hold' nor 'resend'")
    if values.get("on_stop", "finish") not in {"finish", "release"}:
        check.fault("on_stop", f"{values['on_stop']!r} is neither 'finish' nor 'release'")
    return Policy() if check.faults else Policy(**values)


def priority(check: Check, value: Any) -> Priority:
    """A priority by name; numbers are refused, because Redis and RabbitMQ read them the other way round."""
    try:
        return Priority(value)
    except ValueError:
        names = ", ".join(Priority)
        check.fault(
            "priority", f"{value!r} is none of {names}; a number is not taken (on Redis Celery's 0 comes first)"
        )
        return Priority.NORMAL


def middleware_options(check: Check, given: Mapping[str, Any], declared: Mapping[str, Any]) -> dict[str, Any]:
    """The options that middleware declares; anything else is a fault, with a hint."""
    known = dict.fromkeys([*Policy.__struct_fields__, "name", "queue", "priority", "aliases", *OWN, *declared])
    for option, value in given.items():
        if option not in declared:
            check.unknown(option, known)
        elif not isinstance(value, declared[option]):
            check.fault(option, f"{value!r} is not a {getattr(declared[option], '__name__', declared[option])}")
    return dict(given)


def _throws(check: Check, value: Any) -> tuple[type[Exception], ...]:
    classes = value if isinstance(value, tuple) else (value,)
    for each in classes:
        if not (isinstance(each, type) and issubclass(each, Exception)):
            check.fault("throws", f"{each!r} is not an exception class")
    return classes


def _backoff(check: Check, value: Any) -> None:
    if not isinstance(value, Backoff):
        check.fault("backoff", f"{value!r} is not a Backoff(min=…, max=…)")
    elif not 0 <= value.min <= value.max:
        check.fault("backoff", f"min ({value.min:g} s) and max ({value.max:g} s) must be 0 <= min <= max")
    elif value.max > 30 * DAY:
        check.fault("backoff", f"max={value.max:g} s is more than 30 days; durations are seconds, not milliseconds")
