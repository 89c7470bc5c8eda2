"""Reads messages and their attempts from the ledger, always within one tenant."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from callboard_workers.ledger.schema import State, attempts, messages
from callboard_workers.message import Priority
from service.core.errors import NotFound
from service.tasks.celery_states import Status, status


class Attempt(msgspec.Struct, frozen=True):
    """One execution that ended other than as a plain success: `outcome` is the ledger's word."""

    number: int
    outcome: str
    started_at: datetime | None
    ended_at: datetime
    worker: str | None
    detail: Any = None


class TaskReport(msgspec.Struct, frozen=True, kw_only=True):
    """A task in Celery's words, and the ledger's own word as `state`.

    `attempts` counts executions that ended in an error, `crashes` workers that died while it ran alone, since it
    last settled. `due_at` is when it may start (next). `outcome` is what the actor reported, such as the mail server's
    reply.
    """

    id: UUID
    task_id: UUID
    name: str
    status: Status
    state: str
    queue: str
    priority: str
    request_id: str | None
    attempts: int
    crashes: int
    snoozes: int
    error: Any
    outcome: Any
    result: Any
    progress: Any
    worker: str | None
    created_at: datetime
    due_at: datetime
    expires_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    updated_at: datetime
    history: list[Attempt]


async def task(connection: AsyncConnection, tenant_id: UUID | None, task_id: UUID) -> TaskReport | None:
    """Read one task of a tenant, or, for None, one that belongs to no tenant; None where there is no such task."""
    found = await _tasks(connection, messages.c.tenant_id == tenant_id, messages.c.id == task_id)
    return found[0] if found else None


async def tasks_of(connection: AsyncConnection, tenant_id: UUID, request_id: str, limit: int) -> list[TaskReport]:
    """Read the first `limit` tasks that a request caused, its children's too."""
    where = messages.c.request_id == request_id, messages.c.tenant_id == tenant_id
    return await _tasks(connection, *where, limit=limit)


async def arrivals(connection: AsyncConnection, ids: Sequence[UUID]) -> list[tuple[str, str]]:
    """Read how messages came in over HTTP: (route, moment in ISO 8601), each once."""
    headers = messages.c.headers
    columns = headers["route"].astext, headers["received_at"].astext
    statement = sa.select(*columns).where(messages.c.id.in_(ids), headers.has_key("received_at")).distinct()
    return [(row[0], row[1]) for row in await connection.execute(statement)]


async def tenants_of(connection: AsyncConnection, request_id: str) -> list[UUID]:
    """Find the tenants that used a request id."""
    statement = sa.select(messages.c.tenant_id).where(messages.c.request_id == request_id).distinct()
    return [row[0] for row in await connection.execute(statement) if row[0] is not None]


async def dead_letters(
    connection: AsyncConnection,
    tenant_id: UUID | None,
    *,
    actor: str | None = None,
    state: str | None = None,
    error: str | None = None,
    after: UUID | None = None,
    limit: int,
) -> list[TaskReport]:
    """Read messages that wait for a person, newest first, below the id `after`; for None those of all tenants.

    `error` is the type of the last error.
    """
    where: list[sa.ColumnElement[bool]] = [messages.c.state.in_([state] if state else ["dead", "uncertain", "held"])]
    where += [messages.c.tenant_id == tenant_id] if tenant_id is not None else []
    where += [messages.c.error["type"].astext == error] if error is not None else []
    where += [messages.c.actor == actor] if actor is not None else []
    where += [messages.c.id < after] if after is not None else []
    return await _tasks(connection, *where, limit=limit, newest_first=True)


def uuid_of(task_id: str) -> UUID:
    """Read a task id in its one spelling. Raises NotFound."""
    try:
        found = UUID(task_id)
    except ValueError:
        raise unknown_task() from None
    if str(found) != task_id.lower():
        raise unknown_task()
    return found


def unknown_task() -> NotFound:
    """Make the 404 of a task that is not there, or is another tenant's."""
    return NotFound("There is no task with this id.", code="unknown-task")


async def _tasks(
    connection: AsyncConnection, *where: Any, limit: int = 1, newest_first: bool = False
) -> list[TaskReport]:
    order = messages.c.id.desc() if newest_first else messages.c.id
    rows = (await connection.execute(sa.select(messages).where(*where).order_by(order).limit(limit))).all()
    history = await _history(connection, [row.id for row in rows])
    return [_task(row, history.get(row.id, [])) for row in rows]


async def _history(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, list[Attempt]]:
    statement = sa.select(attempts).where(attempts.c.message_id.in_(ids)).order_by(attempts.c.epoch)
    found: dict[UUID, list[Attempt]] = {}
    for row in (await connection.execute(statement)).all() if ids else ():
        made = Attempt(row.epoch, row.outcome, row.started_at, row.ended_at, row.worker, row.detail)
        found.setdefault(row.message_id, []).append(made)
    return found


def _task(row: Any, history: list[Attempt]) -> TaskReport:
    times = [row.created_at, row.started_at, row.finished_at, *(attempt.ended_at for attempt in history)]
    return TaskReport(
        id=row.id,
        task_id=row.id,
        name=row.actor,
        status=status(State(row.state), row.attempts, row.crashes),
        state=row.state,
        queue=row.queue,
        priority=Priority.of(row.priority).value,
        request_id=row.request_id,
        attempts=row.attempts,
        crashes=row.crashes,
        snoozes=row.snoozes,
        error=row.error,
        outcome=row.outcome,
        result=row.result,
        progress=row.progress,
        worker=row.worker,
        created_at=row.created_at,
        due_at=row.due_at,
        expires_at=row.expires_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        updated_at=max(moment for moment in times if moment is not None),
        history=history,
    )
