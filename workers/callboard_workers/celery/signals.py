"""Tells whoever listens how an attempt goes: Celery's signals in this process, task events outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from billiard.einfo import ExceptionInfo
from celery import signals

from callboard_workers.celery.actor_task import failure
from callboard_workers.policy import Canceled, DeadLetter, Done, Expired, Ignored, RetryAt, Snoozed, Unknown

if TYPE_CHECKING:
    from callboard_workers.celery.events import TaskEvents
    from callboard_workers.celery.request import NativeRequest
    from callboard_workers.policy import Outcome


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
        _signal(request, outcome)
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


def _signal(request: NativeRequest, outcome: Outcome) -> None:
    """The signal of this outcome, as `celery.app.trace` and `celery.worker.request` send it."""
    match outcome:
        case Done():
            if signals.task_success.receivers:
                signals.task_success.send(sender=request.task, result=outcome.result)
        case RetryAt() | Snoozed():
            if signals.task_retry.receivers:
                reason = _exception(request, outcome)
                signals.task_retry.send(sender=request.task, request=request._context, reason=reason, einfo=None)
        case DeadLetter() | Unknown():
            if signals.task_failure.receivers:
                error = _exception(request, outcome)
                signals.task_failure.send(
                    sender=request.task,
                    task_id=request.id,
                    exception=error,
                    args=request.args,
                    kwargs=request.kwargs,
                    traceback=error.__traceback__,
                    einfo=ExceptionInfo((type(error), error, error.__traceback__)),
                )
        case Expired() | Canceled():
            if signals.task_revoked.receivers:
                signals.task_revoked.send(
                    sender=request.task,
                    request=request._context,
                    terminated=isinstance(outcome, Canceled),
                    signum=None,
                    expired=isinstance(outcome, Expired),
                )
        case Ignored():
            pass


def _exception(request: NativeRequest, outcome: RetryAt | Snoozed | DeadLetter | Unknown) -> BaseException:
    """What the actor raised; where it raised nothing, what stands for it in Celery."""
    raised = request.context.error if request.context is not None else None
    return raised or failure(outcome)


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
