"""The jobs of a request: when each was accepted, and what became of it."""

from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.core.ids import job_id
from service.core.timeline import Event
from service.jobs.models import Status
from service.jobs.serializers import error_of

OF_REQUEST = text("""
SELECT j.id, j.type, j.status, j.organization_id, j.created_at, m.epoch, m.started_at, m.finished_at, m.error, m.outcome
FROM messages m JOIN jobs j ON j.id = m.id
WHERE m.request_id = :request_id AND j.tenant_id = :tenant_id ORDER BY j.id LIMIT 1000
""")


async def story(connection: AsyncConnection, tenant_id: UUID, request_id: str) -> list[Event]:
    """Tell the jobs of a request; the attempts that did not end them are told with their tasks."""
    told: list[Event] = []
    found = await connection.execute(OF_REQUEST, {"tenant_id": tenant_id, "request_id": request_id})
    for row in found.mappings():
        status = Status(row["status"])
        detail = {"type": row["type"]} | ({"organization": row["organization_id"]} if row["organization_id"] else {})
        told.append(Event(row["created_at"], "job_accepted", job_id(row["id"]), detail))
        if status.terminal and row["finished_at"] is not None:
            told.append(Event(row["finished_at"], f"job_{status}", job_id(row["id"]), _ending(row, status)))
    return told


def _ending(row: RowMapping, status: Status) -> dict[str, Any]:
    """How it ended: the attempt, how long that took, and what was wrong."""
    detail: dict[str, Any] = {}
    if row["started_at"] is not None:
        took = (row["finished_at"] - row["started_at"]).total_seconds() * 1000
        detail = {"attempt": row["epoch"], "ms": round(took, 1)}
    error = error_of(row, status)
    if error is not None:
        detail |= {"code": error.code, "error": error.detail}
    return detail
