"""What its caller wants of a mail where nobody can know whether it was sent; copies of the mail inherit it."""

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

POLICY = text("SELECT uncertain_policy FROM messages WHERE id = :id")


async def doubt(where: AsyncConnection | AsyncSession, email_id: UUID) -> str:
    """The policy `uncertain` of a mail's message; `hold` where that is forgotten."""
    found: str | None = (await where.execute(POLICY, {"id": email_id})).scalar_one_or_none()
    return found or "hold"
