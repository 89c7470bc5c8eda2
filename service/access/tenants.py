"""The tenants, as a key with the scope `admin` is told of them."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.db.tenancy import id_in_test_mode

MOST = 1_000
"""Messages of one tenant that are counted at most: a page says `1,000+`."""

LIST = text("SELECT id, name, created_at, held FROM access_tenants(:key_id, :part, :after, :limit, :most)")
ONE = text("SELECT access_tenant(:key_id, :id)")


class TenantSeen(msgspec.Struct, frozen=True):
    """A tenant: since when, and how many of its messages wait for a person; one above MOST stands for more."""

    id: UUID
    name: str
    created_at: datetime
    held: int

    @property
    def test_id(self) -> UUID:
        """The id under which its test mode is stored."""
        return id_in_test_mode(self.id)


async def tenants(
    connection: AsyncConnection, key_id: UUID, *, part: str = "", after: str = "", limit: int = 50
) -> Sequence[TenantSeen]:
    """List the tenants whose name holds `part`, by name; none where the key is no admin's, or not good any more.

    What it costs grows with `limit`, not with what waits.
    """
    values = {"key_id": key_id, "part": part, "after": after, "limit": limit, "most": MOST + 1}
    return [TenantSeen(*row) for row in await connection.execute(LIST, values)]


async def is_tenant(connection: AsyncConnection, key_id: UUID, id: UUID) -> bool:
    """Whether `id` is a tenant's, live or test, and the key is an admin's."""
    return bool((await connection.execute(ONE, {"key_id": key_id, "id": id})).scalar_one())
