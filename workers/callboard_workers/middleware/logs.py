"""The attempt's context, and one line when it ends."""

from __future__ import annotations

import logging
import sys
import time
from typing import assert_never

import structlog

from callboard_workers.context import Context, enter, running
from callboard_workers.errors import Verdict
from callboard_workers.middleware.base import Execute, Middleware, Process
from callboard_workers.policy import (
    Canceled,
    DeadLetter,
    Done,
    Expired,
    Ignored,
    Outcome,
    RetryAt,
    Snoozed,
    Unknown,
    word,
)

log = structlog.stdlib.get_logger("workers")


class Logs(Middleware):
    """Makes `current()` answer and lets messages made inside inherit their origin.

    Events: task_done, task_retry, task_snooze, task_dead, task_expired, task_uncertain, task_canceled, task_ignored,
    each with `run_ms` and, where Postgres knows it, `wait_ms` (from due to started). Arguments are never logged.
    """

    def startup(self, runtime: Process) -> None:
        """Where the program has not configured structlog: its default prints the local variables of tracebacks."""
        if runtime.working and not structlog.is_configured():
            *processors, _ = structlog.get_config()["processors"]
            plain = structlog.dev.ConsoleRenderer(
                colors=sys.stdout.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
            structlog.configure(processors=[*processors, plain])

    async def execute(self, context: Context, next: Execute) -> Outcome:
        here = enter(context)
        try:
            return await next(context)
        finally:
            running.reset(here)

    def outcome(self, context: Context, outcome: Outcome) -> None:
        if log.is_enabled_for(_LEVELS.get(type(outcome), logging.WARNING)):
            _line(context, outcome)


_LEVELS = {Done: logging.INFO, Snoozed: logging.INFO, Canceled: logging.INFO}


def _line(context: Context, outcome: Outcome) -> None:
    fields = context.ids()
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
