"""What was heard of mails after they were sent, as events."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.emails.schemas import Event

HEARD = text("SELECT email_id, event, address, detail, at FROM email_events WHERE email_id = ANY(:ids) ORDER BY id")


async def heard(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, list[Event]]:
    """Return the events of each of these mails, in the order in which they came in."""
    found: dict[UUID, list[Event]] = {}
    for row in await connection.execute(HEARD, {"ids": list(ids)}):
        detail = row.detail | ({"recipient": row.address} if row.address else {})
        found.setdefault(row.email_id, []).append(Event(at=row.at, event=row.event, detail=detail))
    return found
