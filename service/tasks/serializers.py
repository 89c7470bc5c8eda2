"""Tells a task as events, and each fact once. Pure."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from service.core.timeline import Event
from service.tasks.repository import Attempt, TaskReport

MARKS = frozenset({"requeued", "resent", "resolved"})
"""Rows of a task's history that are nobody's attempt: somebody queued it again, or settled a doubt about it."""

ENDS = frozenset(f"task_{state}" for state in ("done", "dead", "canceled", "expired", "uncertain", "held"))


def task_events(task: TaskReport) -> list[Event]:
    """Tell a task: queued, each attempt, and how it ended; the attempt that ended it is told by the end."""
    queued = {"task": task.name, "queue": task.queue, "priority": task.priority}
    events = [Event(task.created_at, "task_queued", str(task.id), queued)]
    last = _last(task)
    for attempt in task.history:
        events += _attempt(task, attempt, ends=attempt is last)
    number = task.history[-1].number + 1 if task.history else 1
    if task.started_at is not None and all(task.started_at > attempt.ended_at for attempt in task.history):
        started = {"attempt": number} | given(worker=task.worker)
        events.append(Event(task.started_at, "attempt_started", str(task.id), started))
    if task.finished_at is not None:
        events.append(Event(task.finished_at, f"task_{task.state}", str(task.id), _ending(task, last)))
    return events


def once_each(events: Iterable[Event]) -> list[Event]:
    """Leave out how a task or an attempt ended where the record that it worked on tells the same of that attempt.

    A record and its task have one id in two spellings (`em_` and hex digits, a uuid).
    """
    every = list(events)
    told: set[tuple[str, object]] = set()
    for event in every:
        if not event.what.startswith(("task_", "attempt_", "request_")):
            told |= {(key(event.id), event.detail.get("attempt")), (key(event.id), event.at)}
    return [event for event in every if not (_is_end(event) and _places(event) & told)]


def key(id: str) -> str:
    """The digits of an id, however it is spelled."""
    return id.rpartition("_")[2].replace("-", "")


def milliseconds(start: datetime, end: datetime) -> float:
    """From `start` to `end`."""
    return round((end - start).total_seconds() * 1000, 1)


def given(**fields: Any) -> dict[str, Any]:
    """The fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}


def _is_end(event: Event) -> bool:
    return event.what in ENDS or (event.what.startswith("attempt_") and event.what != "attempt_started")


def _places(event: Event) -> set[tuple[str, object]]:
    attempt = event.detail.get("attempt")
    return {(key(event.id), place) for place in (attempt, event.at) if place is not None}


def _last(task: TaskReport) -> Attempt | None:
    """The attempt whose end is the task's end."""
    if task.finished_at is None or not task.history or task.history[-1].outcome != task.state:
        return None
    return task.history[-1]


def _attempt(task: TaskReport, attempt: Attempt, *, ends: bool) -> Iterator[Event]:
    id_, detail = str(task.id), attempt.detail if isinstance(attempt.detail, dict) else given(detail=attempt.detail)
    if attempt.outcome in MARKS:
        yield Event(attempt.ended_at, f"task_{attempt.outcome}", id_, detail)
        return
    known = {"attempt": attempt.number} | given(worker=attempt.worker)
    if attempt.started_at is not None:
        yield Event(attempt.started_at, "attempt_started", id_, known)
        known = known | {"ms": milliseconds(attempt.started_at, attempt.ended_at)}
    if not ends:
        yield Event(attempt.ended_at, f"attempt_{attempt.outcome}", id_, known | detail)


def _ending(task: TaskReport, last: Attempt | None) -> dict[str, Any]:
    found: dict[str, Any] = {"task": task.name}
    if last is not None:
        found |= {"attempt": last.number} | given(worker=last.worker)
    if task.started_at and task.finished_at:
        found["ms"] = milliseconds(task.started_at, task.finished_at)
    if last is not None and task.outcome is None and last.detail:
        found |= last.detail if isinstance(last.detail, dict) else {"detail": last.detail}
    return found | given(outcome=task.outcome, error=task.error)
