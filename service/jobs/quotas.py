"""The month's quota of an organization: read, reserved at acceptance; committed and given back by the database.

A row is one organization's month, so a new month begins with nothing used whether or not anybody resets anything.
"""

from datetime import UTC, date, datetime
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

MONTH = "date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC')::date"
KEPT = "13 months"

_STANDINGS = f"""
SELECT o.id AS organization_id, o.plan, p.rank, p.priority, o.trust_score,
    coalesce(o.job_limit, p.jobs_per_month) AS job_limit, {MONTH} AS period,
    coalesce(q.used, 0) AS used, coalesce(q.reserved, 0) AS reserved
FROM organizations o
JOIN plans p ON p.key = o.plan
LEFT JOIN quotas q ON q.tenant_id = o.tenant_id AND q.organization_id = o.id AND q.period = {MONTH}
WHERE o.tenant_id = :tenant_id
"""  # noqa: S608 (our own constant)
STANDING = text(f"{_STANDINGS} AND o.id = :organization_id")
STANDINGS = text(f"""
{_STANDINGS} AND o.id > :after AND strpos(lower(o.id), lower(:part)) > 0 ORDER BY o.id LIMIT :limit
""")

RESERVE = text("""
INSERT INTO quotas AS q (tenant_id, organization_id, period, reserved)
SELECT :tenant_id, :organization_id, CAST(:period AS date), CAST(:cost AS integer)
WHERE CAST(:cost AS integer) <= CAST(:job_limit AS integer)
ON CONFLICT (tenant_id, organization_id, period) DO UPDATE SET reserved = q.reserved + excluded.reserved
WHERE q.used + q.reserved + excluded.reserved <= CAST(:job_limit AS integer)
RETURNING q.period
""")

OPEN = text(f"""
INSERT INTO quotas (tenant_id, organization_id, period)
SELECT tenant_id, id, {MONTH} FROM organizations ORDER BY tenant_id, id
ON CONFLICT DO NOTHING
RETURNING organization_id
""")  # noqa: S608 (our own constant)

FORGET = text(f"""
DELETE FROM quotas WHERE period < {MONTH} - interval '{KEPT}' AND reserved = 0 RETURNING organization_id
""")  # noqa: S608 (our own constants)


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What an organization may do now: its plan, its trust score (0 to 100), and this month's quota in jobs."""

    organization_id: str
    plan: str
    rank: int
    priority: str
    trust_score: int
    job_limit: int
    period: date
    used: int
    reserved: int

    @property
    def left(self) -> int:
        """What may still be reserved; a limit that was lowered leaves nothing, never less."""
        return max(0, self.job_limit - self.used - self.reserved)

    @property
    def resets_at(self) -> datetime:
        """When the next month begins, UTC."""
        year, month = divmod(self.period.year * 12 + self.period.month, 12)
        return datetime(year, month + 1, 1, tzinfo=UTC)


async def standing(where: AsyncSession | AsyncConnection, tenant_id: UUID, organization_id: str) -> Standing | None:
    """Read where an organization stands; None where there is no such organization."""
    found = await where.execute(STANDING, {"tenant_id": tenant_id, "organization_id": organization_id})
    row = found.mappings().one_or_none()
    return None if row is None else Standing(**row)


async def standings(
    connection: AsyncConnection, tenant_id: UUID, *, part: str = "", after: str = "", limit: int = 50
) -> list[Standing]:
    """List where the organizations stand whose id holds `part`, by id, from behind the id `after` on."""
    values = {"tenant_id": tenant_id, "part": part, "after": after, "limit": limit}
    return [Standing(**row) for row in (await connection.execute(STANDINGS, values)).mappings()]


async def reserve(session: AsyncSession, tenant_id: UUID, organization_id: str, stands: Standing, cost: int) -> bool:
    """Reserve `cost` of the month's quota in the caller's transaction; False where that would pass the limit.

    Whoever reserves for the same organization meanwhile waits until this transaction ends: reserve last.
    """
    values = {"tenant_id": tenant_id, "organization_id": organization_id, "cost": cost}
    found = await session.execute(RESERVE, {**values, "period": stands.period, "job_limit": stands.job_limit})
    return found.one_or_none() is not None


async def turn_month(connection: AsyncConnection) -> tuple[int, int]:
    """Open this month's row for every organization and forget what is older than 13 months; how many of each.

    Again is harmless, and so is never: a row that is missing is made by the first job of the month.
    """
    opened = len((await connection.execute(OPEN)).all())
    return opened, len((await connection.execute(FORGET)).all())
