"""The jobs of a request: when each was accepted, and what became of it."""

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.jobs.models import Status, job_id
from service.story import Event

OF_REQUEST = text("""
SELECT j.id, j.type, j.status, j.organization_id, j.created_at, m.finished_at
FROM messages m JOIN jobs j ON j.id = m.id
WHERE m.request_id = :request_id AND j.tenant_id = :tenant_id ORDER BY j.id LIMIT 1000
""")


async def story(connection: AsyncConnection, tenant_id: UUID, request_id: str) -> list[Event]:
    """Tell the jobs of a request: their attempts are told with their tasks."""
    told: list[Event] = []
    for row in await connection.execute(OF_REQUEST, {"tenant_id": tenant_id, "request_id": request_id}):
        detail = {"type": row.type} | ({"organization": row.organization_id} if row.organization_id else {})
        told.append(Event(row.created_at, "job_accepted", job_id(row.id), detail))
        if Status(row.status).terminal and row.finished_at is not None:
            told.append(Event(row.finished_at, f"job_{row.status}", job_id(row.id)))
    return told
