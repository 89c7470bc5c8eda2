"""The suppressions of a tenant: entered, listed, struck out. Entering twice enters once; the first reason stands."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Row, delete, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from uuid_utils.compat import uuid7

from service.core.ids import email_id
from service.suppressions.models import Reason, suppression_id, suppressions
from service.suppressions.schemas import SuppressionOut

ENTER = text("""
INSERT INTO suppressions (id, tenant_id, mode, address, category, reason, note, email_id)
SELECT i.id, :tenant_id, :mode, i.address, i.category, i.reason, i.note, i.email_id
FROM unnest(CAST(:ids AS uuid[]), CAST(:addresses AS text[]), CAST(:categories AS text[]), CAST(:reasons AS text[]),
    CAST(:notes AS text[]), CAST(:email_ids AS uuid[])) AS i(id, address, category, reason, note, email_id)
ORDER BY i.address, i.category
ON CONFLICT (tenant_id, mode, address, category) DO NOTHING
RETURNING id
""")
FIND = text("""
SELECT i.place, s.* FROM unnest(CAST(:addresses AS text[]), CAST(:categories AS text[]))
    WITH ORDINALITY AS i(address, category, place)
JOIN suppressions s ON s.tenant_id = :tenant_id AND s.mode = :mode AND s.address = i.address
    AND s.category IS NOT DISTINCT FROM i.category
ORDER BY i.place
""")
Where = AsyncSession | AsyncConnection


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be entered: a canonical address, a category or None for every mail."""

    address: str
    category: str | None
    reason: Reason
    note: str | None = None
    email_id: UUID | None = None


async def enter(where: Where, tenant_id: UUID, mode: str, entries: Sequence[Entry]) -> set[UUID]:
    """Enter suppressions in the caller's transaction; returns the ids of those that are new."""
    columns: dict[str, list[Any]] = {
        "ids": [uuid7() for _ in entries],
        "addresses": [entry.address for entry in entries],
        "categories": [entry.category for entry in entries],
        "reasons": [entry.reason.value for entry in entries],
        "notes": [entry.note for entry in entries],
        "email_ids": [entry.email_id for entry in entries],
    }
    found = await where.execute(ENTER, {"tenant_id": tenant_id, "mode": mode, **columns})
    return set(found.scalars())


async def find(where: Where, tenant_id: UUID, mode: str, entries: Sequence[Entry]) -> list[SuppressionOut]:
    """Return what stands for each of these entries, in their order."""
    keys = {
        "addresses": [entry.address for entry in entries],
        "categories": [entry.category for entry in entries],
    }
    found = await where.execute(FIND, {"tenant_id": tenant_id, "mode": mode, **keys})
    return list(map(_told, found))


async def page(
    where: Where, tenant_id: UUID, mode: str, filters: Mapping[str, str], *, before: UUID | None, limit: int
) -> list[SuppressionOut]:
    """Return up to `limit` suppressions with ids below `before`, newest first; `filters`: column and value."""
    statement = select(suppressions).where(suppressions.c.tenant_id == tenant_id, suppressions.c.mode == mode)
    for name, value in filters.items():
        statement = statement.where(suppressions.c[name] == value)
    if before is not None:
        statement = statement.where(suppressions.c.id < before)
    found = await where.execute(statement.order_by(suppressions.c.id.desc()).limit(limit))
    return list(map(_told, found))


async def one(where: Where, tenant_id: UUID, mode: str, id: UUID) -> SuppressionOut | None:
    """Return one suppression, or None."""
    row = (await where.execute(select(suppressions).where(*_of(tenant_id, mode, id)))).one_or_none()
    return None if row is None else _told(row)


async def strike(where: Where, tenant_id: UUID, mode: str, id: UUID) -> bool:
    """Strike one out; tells whether it was there."""
    found = await where.execute(delete(suppressions).where(*_of(tenant_id, mode, id)).returning(suppressions.c.id))
    return found.one_or_none() is not None


def _of(tenant_id: UUID, mode: str, id: UUID) -> tuple[Any, ...]:
    return suppressions.c.tenant_id == tenant_id, suppressions.c.mode == mode, suppressions.c.id == id


def _told(row: Row[Any]) -> SuppressionOut:
    return SuppressionOut(
        id=suppression_id(row.id),
        address=row.address,
        category=row.category,
        reason=row.reason,
        note=row.note,
        email_id=email_id(row.email_id) if row.email_id else None,
        created_at=row.created_at,
    )
