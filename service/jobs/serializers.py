"""Reads jobs: one, a page of them, and what a doorbell needs."""

import hashlib
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from callboard_workers.message import Message, Priority
from service.core.errors import ErrorOut
from service.core.ids import job_id
from service.jobs.models import Status, Urgency
from service.jobs.schemas import JobOut, ProgressOut

COLUMNS = """
    j.id, j.type, j.status, j.mode, j.organization_id, j.priority, j.request_id, j.scheduled_at, j.created_at,
    j.updated_at, j.attempts, j.result, j.input, j.finished_at, m.error, m.outcome, m.progress,
    m.started_at,
    extract(epoch FROM m.due_at - clock_timestamp())::float8 AS wait
"""
SOURCE = "FROM jobs j LEFT JOIN messages m ON m.id = j.id"
ONE = text(f"SELECT {COLUMNS} {SOURCE} WHERE j.id = :id AND j.tenant_id = :tenant_id")
DOORBELL = text(
    "SELECT j.status, m.actor, m.queue, m.priority, m.headers, m.tenant_id, m.state = 'queued' AS waits"
    f" {SOURCE} WHERE j.id = :id"
)
CONDITIONS = {
    "status": "j.status = :status",
    "type": "j.type = :type",
    "organization_id": "j.organization_id = :organization_id",
    "before": "j.id < :before",
}

POLL = 1000  # milliseconds between two looks at a job under way
LONGEST_POLL = 60_000
FINAL = {"Dead", "BadArguments", "BadResult", "Quarantined"}
"""Errors after which another try with the same input ends in the same way."""
SPOKEN = {"Retry", "Dead", "Uncertain"}


async def one(connection: AsyncConnection, tenant_id: UUID, id: UUID) -> JobOut | None:
    """Read a tenant's job; None where there is none."""
    row = (await connection.execute(ONE, {"id": id, "tenant_id": tenant_id})).mappings().one_or_none()
    return None if row is None else _told(row)


async def page(connection: AsyncConnection, tenant_id: UUID, *, limit: int, **filters: Any) -> list[JobOut]:
    """Read up to `limit` jobs, newest first; `filters` are those of CONDITIONS that are not None."""
    given = {name: value for name, value in filters.items() if value is not None}
    where = " AND ".join(["j.tenant_id = :tenant_id", *(CONDITIONS[name] for name in given)])
    statement = text(f"SELECT {COLUMNS} {SOURCE} WHERE {where} ORDER BY j.id DESC LIMIT :limit")
    found = await connection.execute(statement, {**given, "tenant_id": tenant_id, "limit": limit})
    return [_told(row) for row in found.mappings()]


async def doorbell(connection: AsyncConnection, id: UUID) -> tuple[str, Message | None] | None:
    """Read a job's status and, if it waits, the message to ring for it; None where there is no such job."""
    row = (await connection.execute(DOORBELL, {"id": id})).mappings().one_or_none()
    if row is None:
        return None
    if not row["waits"]:
        return row["status"], None
    message = Message(
        id=id,
        actor=row["actor"],
        queue=row["queue"],
        priority=Priority.of(row["priority"]),
        tenant_id=row["tenant_id"],
        headers=row["headers"],
    )
    return row["status"], message


def etag(job: JobOut) -> str:
    """Make the entity tag: the same while nothing but `poll_after_ms` changes, hence weak (RFC 9110, 8.8.3)."""
    plain = msgspec.structs.replace(job, poll_after_ms=None)
    return f'W/"{hashlib.sha256(msgspec.json.encode(plain)).hexdigest()[:32]}"'


def _told(row: RowMapping) -> JobOut:
    status = Status(row["status"])
    progress = row["progress"]
    return JobOut(
        id=job_id(row["id"]),
        type=row["type"],
        status=status,
        task_id=str(row["id"]),
        request_id=row["request_id"],
        attempts=row["attempts"] + (status in {Status.PROCESSING, Status.COMPLETED}),
        error=error_of(row, status),
        created_at=_utc(row["created_at"]),
        updated_at=_utc(row["updated_at"]),
        mode=row["mode"],
        organization_id=row["organization_id"],
        priority=Urgency(row["priority"]),
        input=row["input"],
        progress=None if progress is None else msgspec.convert(progress, ProgressOut),
        result=row["result"],
        scheduled_at=_utc(row["scheduled_at"]),
        started_at=_utc(row["started_at"]),
        finished_at=_utc(row["finished_at"]),
        poll_after_ms=poll_after(status, row["wait"] or 0.0),
    )


def poll_after(status: Status, wait: float) -> int | None:
    """Tell how many milliseconds to wait before the next look; `wait` is seconds until the job is due."""
    if status.terminal:
        return None
    if status is Status.PENDING and wait > POLL / 1000:
        return min(LONGEST_POLL, int(wait * 1000))
    return POLL


def error_of(row: RowMapping, status: Status) -> ErrorOut | None:
    """Read what went wrong last from the message's `error` and `outcome`; None where nothing did."""
    error = row["error"]
    if not error or status is Status.COMPLETED:
        return None
    kind = error.get("type", "error")
    # What the actor said itself stands with the attempt's report; other errors (a crash, a time limit) do not.
    told = (row["outcome"] or {}) if kind in SPOKEN else {}
    code = told.get("reason") or kind
    detail = error.get("message") or error.get("reason") or code
    return ErrorOut(code=code, detail=detail, retryable=kind not in FINAL)


def _utc(moment: datetime | None) -> Any:
    return None if moment is None else moment.astimezone(UTC)
