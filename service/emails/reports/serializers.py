"""What was heard of mails after they were sent, as events."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.emails.reports.tags import Trust
from service.emails.schemas import Event

TRUSTED = {None, Trust.CALLER, Trust.RECIPIENT}
"""Of whom an event is shown as it was reported; events of before there were tags, and those of readers, name none."""

HEARD = text("SELECT email_id, event, address, detail, at FROM email_events WHERE email_id = ANY(:ids) ORDER BY id")


async def heard(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, list[Event]]:
    """Return the events of each of these mails, in the order in which they came in."""
    found: dict[UUID, list[Event]] = {}
    for row in await connection.execute(HEARD, {"ids": list(ids)}):
        detail = row.detail | ({"recipient": row.address} if row.address else {})
        event = row.event if detail.get("trust") in TRUSTED else f"unverified_{row.event}"
        found.setdefault(row.email_id, []).append(Event(at=row.at, event=event, detail=detail))
    return found
