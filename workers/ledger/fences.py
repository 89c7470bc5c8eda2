"""Fence: the point of no return, passed only while the row is provably ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workers.errors import LeaseLost
from workers.ledger.claims import Claim
from workers.ledger.statement import fetch

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

MARGIN = 2.0
"""Seconds of lease that must be left: the time between Postgres' answer and the act itself."""

FENCE = """
WITH mine AS (
    SELECT held.id
    FROM (SELECT * FROM unnest($1::uuid[], $2::integer[]) AS f(id, epoch) ORDER BY id) AS f
    CROSS JOIN LATERAL (
        SELECT m.id FROM messages m
        WHERE m.id = f.id AND m.epoch = f.epoch AND m.state || '' = 'running' AND NOT m.cancel_requested
            AND m.lease_until > clock_timestamp() + make_interval(secs => $3)
        FOR NO KEY UPDATE
    ) AS held
)
UPDATE messages m SET intent = true FROM mine
WHERE m.id = mine.id
    AND m.state || '' = 'running' AND NOT m.cancel_requested
RETURNING m.id
"""


async def fence(engine: AsyncEngine, claims: list[Claim], margin: float = MARGIN) -> list[Exception | None]:
    """Announce intent for a batch; LeaseLost for every row that is not ours any more, or is to be canceled."""
    rows = await fetch(engine, FENCE, [claim.id for claim in claims], [claim.epoch for claim in claims], margin)
    passed = {row["id"] for row in rows}
    lost = "message {} is no longer this attempt's, or is to be canceled"
    return [None if claim.id in passed else LeaseLost(lost.format(claim.id)) for claim in claims]
