"""Fence: the point of no return, passed only while the row is provably ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from callboard_workers.errors import LeaseLost
from callboard_workers.ledger.claims import Claim
from callboard_workers.ledger.database import fetch

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

MARGIN = 2.0
"""Seconds of lease that must be left: the time between Postgres' answer and the act itself."""

FENCE = """
WITH mine AS (
    SELECT held.id, f.detail
    FROM (SELECT * FROM unnest($1::uuid[], $2::integer[], $4::text[]) AS f(id, epoch, detail) ORDER BY id) AS f
    CROSS JOIN LATERAL (
        SELECT m.id FROM messages m
        WHERE m.id = f.id AND m.epoch = f.epoch AND m.state || '' = 'running' AND NOT m.cancel_requested
            AND m.lease_until > clock_timestamp() + make_interval(secs => $3)
        FOR NO KEY UPDATE
    ) AS held
)
UPDATE messages m SET intent = true, fence_detail = mine.detail::jsonb FROM mine
WHERE m.id = mine.id
    AND m.state || '' = 'running' AND NOT m.cancel_requested
RETURNING m.id
"""


class Intent(msgspec.Struct, frozen=True):
    """A claim that is about to pass its fence; `detail` is JSON text that the same statement stores on the row."""

    claim: Claim
    detail: str | None = None


async def fence(engine: AsyncEngine, intents: list[Intent], margin: float = MARGIN) -> list[Exception | None]:
    """Announce intent for a batch; LeaseLost for every row that is not ours any more, or is to be canceled."""
    rows = await fetch(
        engine,
        FENCE,
        [each.claim.id for each in intents],
        [each.claim.epoch for each in intents],
        margin,
        [each.detail for each in intents],
    )
    passed = {row["id"] for row in rows}
    lost = "message {} is no longer this attempt's, or is to be canceled"
    return [None if each.claim.id in passed else LeaseLost(lost.format(each.claim.id)) for each in intents]
