"""The story of a request, in order: the HTTP call, the records, the tasks, their attempts, the mail server's words."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from service.core.timeline import Event, Story
from service.tasks.repository import TaskReport, arrivals, task, tasks_of
from service.tasks.serializers import milliseconds, once_each, task_events

MAX_TASKS = 500
ARRIVAL = "request_received"


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
    events = [Event(datetime.fromisoformat(at), ARRIVAL, request_id, {"route": route}) for route, at in came]
    for told in stories:
        events += await told(connection, tenant_id, request_id)
    for each in tasks:
        events += task_events(each)
    return arrange(request_id, tasks, events, complete) if events else None


async def tell_task(connection: AsyncConnection, tenant_id: UUID | None, id: UUID) -> RequestStory | None:
    """Gather what the ledger knows of one task that no request caused; None where there is no such task."""
    found = await task(connection, tenant_id, id)
    return None if found is None else arrange(str(id), [found], task_events(found))


def arrange(request_id: str, tasks: list[TaskReport], events: Iterable[Event], complete: bool = True) -> RequestStory:
    """Put events in order, each fact once, and measure them from the first: the request's arrival, where it is known.

    Some times are known to the millisecond only, and may seem to lie before the arrival that caused them.
    """
    every = once_each(events)
    first = min((event.at for event in every if event.what == ARRIVAL), default=min(event.at for event in every))
    ordered = sorted(every, key=lambda event: (max(event.at, first), event.what != ARRIVAL))
    moments = [_moment(event, first) for event in ordered]
    ended = max(first, ordered[-1].at)
    return RequestStory(request_id, first, ended, milliseconds(first, ended), complete, tasks, moments)


def _moment(event: Event, first: datetime) -> Moment:
    offset = milliseconds(first, max(event.at, first))
    return Moment(event.at, offset, event.what, event.id, event.detail)
