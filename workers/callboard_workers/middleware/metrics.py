"""Prometheus counters under celery-exporter's names, so that its dashboards and alerts fit."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, assert_never

from prometheus_client import Counter, Gauge, Histogram

from callboard_workers.context import Context
from callboard_workers.message import Message
from callboard_workers.middleware.base import Execute, Middleware, Send
from callboard_workers.policy import Canceled, DeadLetter, Done, Expired, Ignored, Outcome, RetryAt, Snoozed, Unknown

if TYPE_CHECKING:
    from callboard_workers.runtime import Runtime

TASK = ("name", "queue_name")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)

SENT = Counter("celery_task_sent", "Messages sent by this process.", TASK)
RECEIVED = Counter("celery_task_received", "Messages received by this worker.", TASK)
STARTED = Counter("celery_task_started", "Attempts started.", TASK)
SUCCEEDED = Counter("celery_task_succeeded", "Attempts that succeeded.", TASK)
FAILED = Counter("celery_task_failed", "Messages that failed for good or are in doubt.", (*TASK, "exception"))
RETRIED = Counter("celery_task_retried", "Attempts that are to be retried.", (*TASK, "exception"))
REVOKED = Counter("celery_task_revoked", "Messages canceled or expired.", TASK)
REJECTED = Counter("celery_task_rejected", "Messages nobody here can run.", TASK)
SNOOZED = Counter("celery_task_snoozed", "Attempts that put their message off.", TASK)
DEAD = Counter("celery_task_dead", "Messages that became dead letters.", TASK)
UNCERTAIN = Counter("celery_task_uncertain", "Messages whose outcome nobody knows.", TASK)
REDELIVERED = Counter("celery_task_redelivered", "Deaths of workers while they ran a message.", TASK)
UNSIGNED = Counter("celery_messages_unsigned", "Direct messages refused for want of a signature of our keys.")
IGNORED = Counter("celery_task_ignored", "Doorbells for rows not to be had, attempts that lost theirs.", TASK)
RUNTIME = Histogram("celery_task_runtime", "Seconds an attempt ran.", TASK, buckets=SECONDS)
WAIT = Histogram("celery_task_queue_wait_time", "Seconds from due to started.", TASK, buckets=SECONDS)
ACTIVE = Gauge("celery_worker_tasks_active", "Attempts running now.", multiprocess_mode="livesum")
UP = Gauge("celery_worker_up", "1 while this process runs messages.", multiprocess_mode="livesum")
LAG = Gauge(
    "celery_event_loop_lag_seconds", "Seconds the worker's event loop took to answer.", multiprocess_mode="livemax"
)
STUCK = Gauge("celery_worker_tasks_stuck", "Attempts written off that have not let go.", multiprocess_mode="livesum")


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

    def startup(self, runtime: Runtime) -> None:
        if runtime.working:
            UP.set(1)

    def shutdown(self, runtime: Runtime) -> None:
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
