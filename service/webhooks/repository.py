"""Makes, reads and changes endpoints, in the caller's transaction."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import RowMapping
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from uuid_utils.compat import uuid7

from service.core.errors import Conflict
from service.webhooks.health import cancel_waiting
from service.webhooks.models import deliveries, endpoint_id, endpoints
from service.webhooks.params import unknown_endpoint
from service.webhooks.resources import Postroom
from service.webhooks.schemas import EndpointOut, EndpointRequest, RotateRequest
from service.webhooks.signing import new_secret

MOST = 100
"""Endpoints of one tenant and mode: each event looks at all of them."""

BY_HAND = "It was disabled by hand."
_NOW = sa.func.clock_timestamp()


async def create(
    session: AsyncSession, room: Postroom, tenant_id: UUID, mode: str, asked: EndpointRequest
) -> tuple[EndpointOut, str]:
    """Store an endpoint, its URL in the normal form; the secret is told this once. Raises Conflict, CannotSeal."""
    id, secret = uuid7(), asked.secret or new_secret()
    mine = (endpoints.c.tenant_id == tenant_id) & (endpoints.c.mode == mode)
    if (await session.execute(sa.select(sa.func.count()).where(mine))).scalar_one() >= MOST:
        raise Conflict(f"There are {MOST} endpoints already: delete one, or PATCH it.", code="too-many-webhooks")
    await _check_free(session, mine, asked.url)
    row = {
        "id": id,
        "tenant_id": tenant_id,
        "mode": mode,
        "url": asked.url,
        "events": asked.events,
        "description": asked.description,
        "enabled": asked.enabled,
        "disabled_reason": None if asked.enabled else BY_HAND,
        "secret": room.seal(secret, id),
    }
    return told(await _write(session, sa.insert(endpoints).values(row))), secret


async def _write(session: AsyncSession, statement: sa.Insert | sa.Update) -> RowMapping:
    """Write an endpoint. Raises Conflict where another one took its URL since that was looked up."""
    try:
        found = await session.execute(statement.returning(endpoints))
    except IntegrityError:
        raise Conflict("Another endpoint has this URL by now: PATCH that one.", code="webhook-exists") from None
    row: RowMapping = found.mappings().one()
    return row


async def _check_free(session: AsyncSession, mine: Any, url: str, but: UUID | None = None) -> None:
    other = (await session.execute(sa.select(endpoints.c.id).where(mine, endpoints.c.url == url))).scalar_one_or_none()
    if other is not None and other != but:
        raise Conflict(f"{endpoint_id(other)} has this URL already: PATCH that one.", code="webhook-exists")


async def one(connection: AsyncConnection | AsyncSession, tenant_id: UUID, id: UUID) -> EndpointOut:
    """Read an endpoint. Raises NotFound."""
    return told(await _row(connection, tenant_id, id))


async def page(
    connection: AsyncConnection, tenant_id: UUID, *, limit: int, before: UUID | None = None
) -> list[EndpointOut]:
    """Read up to `limit` endpoints of a tenant, newest first."""
    statement = sa.select(endpoints).where(endpoints.c.tenant_id == tenant_id)
    if before is not None:
        statement = statement.where(endpoints.c.id < before)
    found = await connection.execute(statement.order_by(endpoints.c.id.desc()).limit(limit))
    return [told(row) for row in found.mappings()]


async def change(session: AsyncSession, tenant_id: UUID, id: UUID, values: Mapping[str, Any]) -> EndpointOut:
    """Change an endpoint: enabling forgets its failures, disabling cancels what waits. Raises NotFound, Conflict."""
    row = await _row(session, tenant_id, id, lock=True)
    new = dict(values)
    if "url" in new:
        mine = (endpoints.c.tenant_id == tenant_id) & (endpoints.c.mode == row["mode"])
        await _check_free(session, mine, new["url"], but=id)
    if new.get("enabled") is True:
        new |= {"disabled_reason": None, "failures": 0, "failing_since": None, "resting_until": None}
    if new.get("enabled") is False and row["enabled"]:
        new["disabled_reason"] = BY_HAND
        await cancel_waiting(await session.connection(), id)
    return await _update(session, id, new)


async def rotate(
    session: AsyncSession, room: Postroom, tenant_id: UUID, id: UUID, asked: RotateRequest
) -> tuple[EndpointOut, str]:
    """Give an endpoint a new secret, beside which the one before signs for a while. Raises NotFound, CannotSeal."""
    row = await _row(session, tenant_id, id, lock=True)
    made, overlap = asked.secret or new_secret(), asked.overlap
    new = {
        "secret": room.seal(made, id),
        "previous_secret": row["secret"] if overlap else None,
        "previous_until": _NOW + sa.func.make_interval(0, 0, 0, 0, 0, 0, overlap) if overlap else None,
    }
    return await _update(session, id, new), made


async def delete(session: AsyncSession, tenant_id: UUID, id: UUID) -> None:
    """Delete an endpoint and its deliveries, and cancel what waits for it. Raises NotFound."""
    await _row(session, tenant_id, id, lock=True)
    await cancel_waiting(await session.connection(), id)
    await session.execute(sa.delete(deliveries).where(deliveries.c.endpoint_id == id))
    await session.execute(sa.delete(endpoints).where(endpoints.c.id == id))


async def named(session: AsyncSession, tenant_id: UUID, mode: str, given: str) -> UUID | None:
    """Find an endpoint that can be called by its id or its URL; None where there is none."""
    spelled = sa.literal("wh_") + sa.func.replace(sa.cast(endpoints.c.id, sa.Text), "-", "")
    statement = sa.select(endpoints.c.id).where(
        endpoints.c.tenant_id == tenant_id,
        endpoints.c.mode == mode,
        endpoints.c.enabled,
        (endpoints.c.url == given) | (spelled == given),
    )
    return (await session.execute(statement)).scalars().first()


async def _update(session: AsyncSession, id: UUID, values: Mapping[str, Any]) -> EndpointOut:
    statement = sa.update(endpoints).where(endpoints.c.id == id).values({**values, "updated_at": _NOW})
    return told(await _write(session, statement))


async def _row(
    connection: AsyncConnection | AsyncSession, tenant_id: UUID, id: UUID, *, lock: bool = False
) -> RowMapping:
    statement = sa.select(endpoints).where(endpoints.c.id == id, endpoints.c.tenant_id == tenant_id)
    statement = statement.with_for_update() if lock else statement
    row = (await connection.execute(statement)).mappings().one_or_none()
    if row is None:
        raise unknown_endpoint()
    return row


def told(row: RowMapping) -> EndpointOut:
    """An endpoint as the API tells it."""
    until = row["previous_until"]
    return EndpointOut(
        id=endpoint_id(row["id"]),
        url=row["url"],
        mode=row["mode"],
        events=row["events"],
        description=row["description"],
        enabled=row["enabled"],
        disabled_reason=row["disabled_reason"],
        failing_since=row["failing_since"],
        previous_secret_until=until if until is not None and until > datetime.now(UTC) else None,
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
