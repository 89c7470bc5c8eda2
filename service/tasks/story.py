"""The story of a request, in order: the HTTP call, the records, the tasks, their attempts, the mail server's words."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from service.story import Event, Story
from service.tasks.reading import TaskReport, arrivals, tasks_of

MAX_TASKS = 500


class Moment(msgspec.Struct, frozen=True):
    """One event of a story: `offset_ms` from its beginning, `id` of the record or task, `detail` its fields."""

    at: datetime
    offset_ms: float
    what: str
    id: str
    detail: dict[str, Any]


class RequestStory(msgspec.Struct, frozen=True):
    """The whole story; `complete` is false where the request caused more tasks than are told (500)."""

    request_id: str
    started_at: datetime
    ended_at: datetime
    duration_ms: float
    complete: bool
    tasks: list[TaskReport]
    events: list[Moment]


async def tell(
    connection: AsyncConnection, tenant_id: UUID, request_id: str, stories: Sequence[Story]
) -> RequestStory | None:
    """Gather what the ledger and every slice know of a request; None where nobody knows it."""
    tasks = await tasks_of(connection, tenant_id, request_id, MAX_TASKS + 1)
    complete, tasks = len(tasks) <= MAX_TASKS, tasks[:MAX_TASKS]
    came = await arrivals(connection, [task.id for task in tasks])
    events = [Event(datetime.fromisoformat(at), "request_received", request_id, {"route": route}) for route, at in came]
    for told in stories:
        events += await told(connection, tenant_id, request_id)
    for task in tasks:
        events += task_events(task)
    return arrange(request_id, tasks, events, complete) if events else None


def arrange(request_id: str, tasks: list[TaskReport], events: Iterable[Event], complete: bool = True) -> RequestStory:
    """Put events in order and measure them from the first."""
    ordered = sorted(events, key=lambda event: event.at)
    first, last = ordered[0].at, ordered[-1].at
    moments = [Moment(event.at, _ms(first, event.at), event.what, event.id, event.detail) for event in ordered]
    return RequestStory(request_id, first, last, _ms(first, last), complete, tasks, moments)


def task_events(task: TaskReport) -> list[Event]:
    """Tell a task: queued, each attempt, and how it ended."""
    name, id_ = task.name, str(task.id)
    queued = {"task": name, "queue": task.queue, "priority": task.priority}
    events = [Event(task.created_at, "task_queued", id_, queued)]
    for attempt in task.history:
        detail = {"task": name, "attempt": attempt.number} | _given(worker=attempt.worker)
        if attempt.started_at is not None:
            events.append(Event(attempt.started_at, "attempt_started", id_, detail))
        more = _given(ms=attempt.started_at and _ms(attempt.started_at, attempt.ended_at), detail=attempt.detail)
        events.append(Event(attempt.ended_at, f"attempt_{attempt.outcome}", id_, detail | more))
    if task.started_at is not None and all(task.started_at > attempt.ended_at for attempt in task.history):
        events.append(Event(task.started_at, "attempt_started", id_, {"task": name} | _given(worker=task.worker)))
    if task.finished_at is not None:
        events.append(Event(task.finished_at, f"task_{task.state}", id_, _ending(task)))
    return events


def _ending(task: TaskReport) -> dict[str, Any]:
    took = _given(ms=_ms(task.started_at, task.finished_at)) if task.started_at and task.finished_at else {}
    return {"task": task.name} | took | _given(outcome=task.outcome, error=task.error)


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _ms(start: datetime, end: datetime) -> float:
    return round((end - start).total_seconds() * 1000, 1)
