"""The senders of a tenant: made, looked up, marked as verified, deleted."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from service.domains.dns_records import Record, records
from service.domains.models import sender_id, senders
from service.domains.schemas import SenderOut

MOST = 100
"""Senders of one tenant."""


async def add(session: AsyncSession, values: dict[str, Any]) -> SenderOut:
    """Store a sender. Raises IntegrityError where the tenant has this domain already."""
    row = (await session.execute(insert(senders).values(values).returning(senders))).one()
    return told(row)


async def all_of(session: AsyncSession, tenant_id: UUID) -> list[SenderOut]:
    """Return every sender of a tenant, newest first."""
    found = select(senders).where(senders.c.tenant_id == tenant_id).order_by(senders.c.id.desc()).limit(MOST)
    return [told(row) for row in await session.execute(found)]


async def count(session: AsyncSession, tenant_id: UUID) -> int:
    """Count the senders of a tenant."""
    found = select(func.count()).select_from(senders).where(senders.c.tenant_id == tenant_id)
    number: int = (await session.execute(found)).scalar_one()
    return number


async def one(session: AsyncSession, tenant_id: UUID, id: UUID) -> SenderOut | None:
    """Return one sender, or None."""
    row = (await session.execute(select(senders).where(*_of(tenant_id, id)))).one_or_none()
    return None if row is None else told(row)


async def checked(session: AsyncSession, tenant_id: UUID, id: UUID, looked: Sequence[Record]) -> SenderOut | None:
    """Note what was found in DNS: verified if every record is there, and not any more if one is missing."""
    now = func.clock_timestamp()
    good = all(record.found for record in looked)
    values = {"checked_at": now, "verified_at": func.coalesce(senders.c.verified_at, now) if good else None}
    row = (
        await session.execute(update(senders).where(*_of(tenant_id, id)).values(values).returning(senders))
    ).one_or_none()
    return None if row is None else told(row, looked)


async def remove(session: AsyncSession, tenant_id: UUID, id: UUID) -> bool:
    """Delete a sender with its key; tells whether it was there."""
    found = await session.execute(delete(senders).where(*_of(tenant_id, id)).returning(senders.c.id))
    return found.one_or_none() is not None


def told(row: Row[Any], looked: Sequence[Record] | None = None) -> SenderOut:
    """A sender as the API tells it: never its private key."""
    return SenderOut(
        id=sender_id(row.id),
        domain=row.domain,
        verified=row.verified_at is not None,
        verified_at=row.verified_at,
        checked_at=row.checked_at,
        created_at=row.created_at,
        records=list(looked or records(row.domain, row.token, row.selector, row.public_key)),
    )


def _of(tenant_id: UUID, id: UUID) -> tuple[Any, ...]:
    return senders.c.tenant_id == tenant_id, senders.c.id == id
