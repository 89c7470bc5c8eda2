"""Sends once more what was not delivered, or what an app has lost: with the same `webhook-id`, so it is known again.

A delivery that failed is put back and has all its attempts again; one that waits for its next attempt is brought
forward; one that was delivered or canceled is made anew.
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from uuid_utils.compat import uuid7

from service.core.errors import Conflict
from service.webhooks import params
from service.webhooks.actors import deliver
from service.webhooks.models import Status, deliveries, events
from service.webhooks.params import unknown_delivery
from service.webhooks.schemas import DeliveryOut, EndpointOut
from service.webhooks.serializers import STATUS
from service.webhooks.types import TEST

BATCH = 1_000
"""Deliveries that one `POST …/redeliver` puts back."""

HASTEN = text("""
UPDATE messages SET due_at = clock_timestamp() WHERE id = :id AND state = 'queued' RETURNING id
""")
CHOSEN = text(f"""
SELECT DISTINCT ON (d.event_id) d.id, d.event_id, {STATUS} AS status
FROM webhook_deliveries d JOIN messages m ON m.id = d.id
WHERE d.endpoint_id = :endpoint AND d.tenant_id = :tenant_id AND d.id >= :since AND d.id < :until
    AND m.state IN ('dead', 'canceled', 'done')
    AND (:all OR NOT EXISTS (
        SELECT FROM webhook_deliveries o JOIN messages p ON p.id = o.id
        WHERE o.event_id = d.event_id AND o.endpoint_id = d.endpoint_id
            AND (p.state IN ('queued', 'running') OR (p.state = 'done' AND NOT coalesce(p.outcome, '{{}}') ? 'skipped'))
    ))
ORDER BY d.event_id, d.id DESC LIMIT :batch
""")  # noqa: S608 (our own condition)


async def make(session: AsyncSession, tenant_id: UUID, endpoint: UUID, event: UUID) -> UUID:
    """Store a delivery of an event and its message, in the caller's transaction."""
    id = uuid7()
    row = {"id": id, "tenant_id": tenant_id, "endpoint_id": endpoint, "event_id": event}
    await session.execute(deliveries.insert().values(row))
    await deliver.options(id=id, tenant_id=tenant_id).enqueue(session, id, endpoint)
    return id


async def try_out(session: AsyncSession, tenant_id: UUID, told: EndpointOut, request_id: str) -> UUID:
    """Store a test event and its delivery to this endpoint alone."""
    id, endpoint = uuid7(), params.endpoint(told.id)
    event = {"id": id, "tenant_id": tenant_id, "mode": told.mode, "type": TEST, "request_id": request_id}
    await session.execute(events.insert().values(event | {"data": {"message": "It works.", "endpoint_id": told.id}}))
    return await make(session, tenant_id, endpoint, id)


async def again(session: AsyncSession, tenant_id: UUID, found: DeliveryOut, id: UUID, endpoint: UUID) -> UUID | None:
    """Deliver once more; the new delivery's id, or None where the old one is to be put back. Raises Conflict."""
    if found.status is Status.SENDING:
        raise Conflict("The delivery is being made right now.", code="delivery-under-way")
    if found.status is Status.PENDING:
        if (await session.execute(HASTEN, {"id": id})).first() is None:
            raise Conflict("The delivery is being made right now.", code="delivery-under-way")
        return id
    if found.status is Status.FAILED:
        return None
    return await make(session, tenant_id, endpoint, await _event(session, id))


async def chosen(
    connection: AsyncConnection, tenant_id: UUID, endpoint: UUID, since: UUID, until: UUID, *, everything: bool
) -> list[tuple[UUID, UUID, Status]]:
    """Find what is to be sent again, at most BATCH: (delivery, event, status), the last delivery of each event."""
    values = {"tenant_id": tenant_id, "endpoint": endpoint, "since": since, "until": until, "all": everything}
    rows = await connection.execute(CHOSEN, values | {"batch": BATCH})
    return [(row.id, row.event_id, Status(row.status)) for row in rows]


async def _event(session: AsyncSession, id: UUID) -> UUID:
    found = await session.execute(deliveries.select().where(deliveries.c.id == id))
    row = found.mappings().one_or_none()
    if row is None:
        raise unknown_delivery()
    event: UUID = row["event_id"]
    return event


def first_id(moment: datetime) -> UUID:
    """The lowest id that a delivery made at `moment` could have."""
    return UUID(int=max(0, int(moment.timestamp() * 1000)) << 80)
