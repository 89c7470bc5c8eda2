"""The notifications of a request: when each was accepted, and whom it reached in the end."""

from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.core.ids import notification_id
from service.core.timeline import Event

OF_REQUEST = text("""
SELECT id, type, created_at, finished_at, resolved, overlapping, excluded, deduplicated, inbox_delivered, email_queued,
    email_collected
FROM notifications WHERE tenant_id = :tenant_id AND request_id = :request_id ORDER BY id LIMIT 1000
""")
COUNTS = ("resolved", "overlapping", "excluded", "deduplicated", "inbox_delivered", "email_queued", "email_collected")


async def story(connection: AsyncConnection, tenant_id: UUID, request_id: str) -> list[Event]:
    """Tell the notifications of a request; their mails and attempts are told by themselves."""
    told: list[Event] = []
    found = await connection.execute(OF_REQUEST, {"request_id": request_id, "tenant_id": tenant_id})
    for row in found.mappings():
        id = notification_id(row["id"])
        told.append(Event(row["created_at"], "notification_accepted", id, {"type": row["type"]}))
        if row["finished_at"] is not None:
            told.append(Event(row["finished_at"], "notification_delivered", id, _counts(row)))
    return told


def _counts(row: RowMapping) -> dict[str, Any]:
    return {name: row[name] for name in COUNTS if row[name]}
