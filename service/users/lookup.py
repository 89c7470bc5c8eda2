"""Reads people: one by id, or the followers of a topic chunk by chunk."""

from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Row, Select, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from service.users.models import followers as following
from service.users.models import users

CHUNK = 10_000


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """A user, as whoever writes to one needs it. `email` may have a display name, `address` is its addr-spec."""

    no: int
    id: str
    email: str | None
    address: str | None
    locale: str | None
    timezone: str
    attributes: dict[str, Any]


async def find(connection: AsyncConnection | AsyncSession, tenant_id: UUID, mode: str, user_id: str) -> Person | None:
    """Return the user of this id, or None."""
    statement = _people().where(users.c.tenant_id == tenant_id, users.c.mode == mode, users.c.id == user_id)
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else _person(row)


async def followers(
    connection: AsyncConnection | AsyncSession,
    tenant_id: UUID,
    mode: str,
    topic: str,
    *,
    after: int = 0,
    limit: int = CHUNK,
) -> list[Person]:
    """Return the followers of a topic whose number is above `after`, in order of their numbers, at most `limit`.

    The next chunk begins after the last one's `no`; fewer than `limit` are the last.
    """
    chosen = (
        _people()
        .join(following, following.c.user_no == users.c.no)
        .where(following.c.tenant_id == tenant_id, following.c.mode == mode, following.c.topic == topic)
        .where(following.c.user_no > after)
        .order_by(following.c.user_no)
        .limit(limit)
    )
    return [_person(row) for row in await connection.execute(chosen)]


def _people() -> Select[Any]:
    columns = (users.c[name] for name in Person.__struct_fields__)
    return select(*columns)


def _person(row: Row[Any]) -> Person:
    return Person(**row._mapping)
