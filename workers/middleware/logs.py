"""The attempt's context, and one line when it ends."""

from __future__ import annotations

import time
from typing import assert_never

import structlog

from workers.context import Context, correlation, running
from workers.errors import Verdict
from workers.middleware.base import Execute, Middleware
from workers.policy import Canceled, DeadLetter, Done, Expired, Ignored, Outcome, RetryAt, Snoozed, Unknown, word

log = structlog.stdlib.get_logger("workers")


class Logs(Middleware):
    """Makes `current()` answer, lets messages made inside inherit their origin, binds ids to every log line.

    Events: task_done, task_retry, task_snooze, task_dead, task_expired, task_uncertain, task_canceled, task_ignored,
    each with `run_ms` and, where Postgres knows it, `wait_ms` (from due to started). Arguments are never logged.
    """

    async def execute(self, context: Context, next: Execute) -> Outcome:
        here = running.set(context)
        origin = correlation.set(context.correlation())
        ids = structlog.contextvars.bind_contextvars(**_ids(context))
        try:
            return await next(context)
        finally:
            structlog.contextvars.reset_contextvars(**ids)
            correlation.reset(origin)
            running.reset(here)

    def outcome(self, context: Context, outcome: Outcome) -> None:
        _line(context, outcome)


def _ids(context: Context) -> dict[str, object]:
    ids: dict[str, object] = {
        "task_id": str(context.id),
        "task_name": context.actor.name,
        "attempt": context.attempt,
    }
    if context.request_id is not None:
        ids["request_id"] = context.request_id
    if context.tenant_id is not None:
        ids["tenant"] = str(context.tenant_id)
    return ids


def _line(context: Context, outcome: Outcome) -> None:
    fields = _ids(context)
    fields["run_ms"] = round((time.monotonic() - context.started) * 1000, 1)
    if context.waited is not None:
        fields["wait_ms"] = round(context.waited * 1000, 1)
    if outcome.reason:
        fields["reason"] = outcome.reason
    if outcome.error is not None:
        fields["error"] = outcome.error["type"]
    event = f"task_{word(outcome)}"
    match outcome:
        case Done() | Snoozed() | Canceled():
            log.info(event, **fields)
        case RetryAt():
            log.warning(event, delay=round(outcome.delay, 3), exc_info=_unforeseen(context), **fields)
        case DeadLetter():
            log.error(event, exc_info=None if outcome.expected else _unforeseen(context), **fields)
        case Expired() | Ignored():
            log.warning(event, **fields)
        case Unknown():
            log.error(event, exc_info=_unforeseen(context), **fields)
        case _:
            assert_never(outcome)


def _unforeseen(context: Context) -> BaseException | None:
    """The exception worth a traceback: one that the actor did not raise as its verdict."""
    return None if isinstance(context.error, Verdict) else context.error
