"""How long a mail's `dedup_key` holds: until its window is over, and then until somebody asks for the key again.

The unique index on the key decides between two at once, whoever has let go of it; so letting go twice is harmless.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.types import Text

RELEASE = text("""
UPDATE emails SET dedup_key = NULL WHERE tenant_id = :tenant_id AND dedup_key = ANY(:keys)
    AND dedup_until <= clock_timestamp()
RETURNING id
""").bindparams(bindparam("keys", type_=ARRAY(Text)))


async def release(where: AsyncConnection | AsyncSession, tenant_id: UUID, keys: Sequence[str]) -> bool:
    """Take these keys from mails whose window is over, in the caller's transaction; tells whether there was one."""
    if not keys:
        return False
    return bool((await where.execute(RELEASE, {"tenant_id": tenant_id, "keys": list(keys)})).all())
