"""Tells whoever listens how an attempt goes: Celery's signals in this process, task events outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import signals

from workers.policy import Canceled, DeadLetter, Done, Expired, Ignored, RetryAt, Snoozed, Unknown

if TYPE_CHECKING:
    from workers.celery.events import TaskEvents
    from workers.celery.request import NativeRequest
    from workers.policy import Outcome


class Announcer:
    """Costs next to nothing while nobody listens. Loop thread."""

    def __init__(self, consumer: Any, events: TaskEvents) -> None:
        self._consumer = consumer
        self._events = events

    @property
    def watched(self) -> bool:
        """Whether somebody wants task events (`-E`, Flower, `celery control enable_events`)."""
        dispatcher = self._consumer.event_dispatcher
        return dispatcher is not None and dispatcher.enabled and (not dispatcher.groups or "task" in dispatcher.groups)

    def started(self, request: NativeRequest) -> None:
        """An attempt begins."""
        if signals.task_received.receivers:
            signals.task_received.send(sender=self._consumer, request=request)
        if signals.task_prerun.receivers:
            signals.task_prerun.send(
                sender=request.task, task_id=request.id, task=request.task, args=request.args, kwargs=request.kwargs
            )
        if self.watched:
            self._events.send(
                "task-received",
                uuid=request.id,
                name=request.name,
                args=request.argsrepr,
                kwargs=request.kwargsrepr,
                root_id=request.root_id,
                parent_id=request.parent_id,
                retries=request.request_dict.get("retries") or 0,
                eta=None,
                expires=request.expires and request.expires.isoformat(),
            )
            self._events.send("task-started", uuid=request.id)

    def ended(self, request: NativeRequest, outcome: Outcome, seconds: float) -> None:
        """An attempt has come to its outcome after `seconds`."""
        if signals.task_postrun.receivers:
            signals.task_postrun.send(
                sender=request.task,
                task_id=request.id,
                task=request.task,
                args=request.args,
                kwargs=request.kwargs,
                retval=getattr(outcome, "result", None),
                state=_STATES[type(outcome)],
            )
        if self.watched:
            kind, fields = _event(outcome, seconds)
            self._events.send(kind, uuid=request.id, **fields)


_STATES = {
    Done: "SUCCESS",
    RetryAt: "RETRY",
    Snoozed: "RETRY",
    DeadLetter: "FAILURE",
    Unknown: "FAILURE",
    Expired: "REVOKED",
    Canceled: "REVOKED",
    Ignored: "IGNORED",
}


def _event(outcome: Outcome, seconds: float) -> tuple[str, dict[str, Any]]:
    match outcome:
        case Done():
            return "task-succeeded", {"result": repr(outcome.result)[:1024], "runtime": seconds}
        case RetryAt() | Snoozed():
            return "task-retried", {"exception": _error(outcome), "traceback": None}
        case DeadLetter() | Unknown():
            return "task-failed", {"exception": _error(outcome), "traceback": None}
        case Expired() | Canceled() | Ignored():
            return "task-revoked", {"terminated": False, "signum": None, "expired": isinstance(outcome, Expired)}


def _error(outcome: Outcome) -> str:
    return f"{(outcome.error or {}).get('type', type(outcome).__name__)}: {outcome.reason}"
