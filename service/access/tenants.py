"""The tenants, as a key with the scope `admin` is told of them."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

LIST = text("""
SELECT id, name, created_at, held FROM access_tenants(:key_id)
WHERE name > :after AND strpos(lower(name), lower(:part)) > 0 ORDER BY name LIMIT :limit
""")
ONE = text("SELECT id, name, created_at, held FROM access_tenants(:key_id) WHERE id = :id")


class TenantSeen(msgspec.Struct, frozen=True):
    """A tenant: since when, and how many of its messages wait for a person."""

    id: UUID
    name: str
    created_at: datetime
    held: int


async def tenants(
    connection: AsyncConnection, key_id: UUID, *, part: str = "", after: str = "", limit: int = 50
) -> Sequence[TenantSeen]:
    """List the tenants whose name holds `part`, by name; none where the key is no admin's, or not good any more."""
    found = await connection.execute(LIST, {"key_id": key_id, "part": part, "after": after, "limit": limit})
    return [TenantSeen(*row) for row in found]


async def tenant(connection: AsyncConnection, key_id: UUID, id: UUID) -> TenantSeen | None:
    """Find a tenant; None where there is none, or the key is no admin's."""
    row = (await connection.execute(ONE, {"key_id": key_id, "id": id})).one_or_none()
    return None if row is None else TenantSeen(*row)
