"""Prometheus counters under celery-exporter's names, so that its dashboards and alerts fit."""

from __future__ import annotations

import time
from typing import assert_never

from callboard_workers.context import Context
from callboard_workers.message import Message
from callboard_workers.metrics import (
    ACTIVE,
    DEAD,
    FAILED,
    IGNORED,
    RECEIVED,
    REDELIVERED,
    RETRIED,
    REVOKED,
    RUNTIME,
    SENT,
    SNOOZED,
    STARTED,
    SUCCEEDED,
    UNCERTAIN,
    UP,
    WAIT,
)
from callboard_workers.middleware.base import Execute, Middleware, Process, Send
from callboard_workers.policy import Canceled, DeadLetter, Done, Expired, Ignored, Outcome, RetryAt, Snoozed, Unknown


class Series:
    """What every attempt of one actor and queue counts, looked up once."""

    __slots__ = ("received", "runtime", "started", "succeeded", "wait")

    def __init__(self, labels: tuple[str, str]) -> None:
        self.received = RECEIVED.labels(*labels)
        self.started = STARTED.labels(*labels)
        self.succeeded = SUCCEEDED.labels(*labels)
        self.runtime = RUNTIME.labels(*labels)
        self.wait = WAIT.labels(*labels)


class Metrics(Middleware):
    """Counts; labels are the actor, the queue and the exception's class, never an id."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Series] = {}

    def startup(self, runtime: Process) -> None:
        if runtime.working:
            UP.set(1)

    def shutdown(self, runtime: Process) -> None:
        if runtime.working:
            UP.set(0)

    async def send(self, message: Message, next: Send) -> Message:
        sent = await next(message)
        SENT.labels(sent.actor, sent.queue).inc()
        return sent

    async def execute(self, context: Context, next: Execute) -> Outcome:
        series = self._series(context)
        series.received.inc()
        series.started.inc()
        if context.waited is not None:
            series.wait.observe(context.waited)
        ACTIVE.inc()
        try:
            return await next(context)
        finally:
            ACTIVE.dec()
            series.runtime.observe(time.monotonic() - context.started)

    def outcome(self, context: Context, outcome: Outcome) -> None:
        labels = (context.actor.name, context.queue)
        exception = outcome.error["type"] if outcome.error is not None else ""
        match outcome:
            case Done():
                self._series(context).succeeded.inc()
            case RetryAt():
                RETRIED.labels(*labels, exception).inc()
            case Snoozed():
                SNOOZED.labels(*labels).inc()
            case DeadLetter():
                FAILED.labels(*labels, exception).inc()
                DEAD.labels(*labels).inc()
            case Unknown():
                FAILED.labels(*labels, exception).inc()
                UNCERTAIN.labels(*labels).inc()
            case Expired() | Canceled():
                REVOKED.labels(*labels).inc()
            case Ignored():
                IGNORED.labels(*labels).inc()
            case _:
                assert_never(outcome)

    def _series(self, context: Context) -> Series:
        labels = (context.actor.name, context.queue)
        found = self._known.get(labels)
        if found is None:
            found = self._known[labels] = Series(labels)
        return found

    def lost(self, message: Message) -> None:
        REDELIVERED.labels(message.actor, message.queue).inc()
