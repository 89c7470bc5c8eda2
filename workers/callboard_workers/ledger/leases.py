"""Leases: kept while an attempt runs, given back when it is not to run here after all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from callboard_workers.ledger.claims import Claim
from callboard_workers.ledger.database import fetch

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

RENEW = """
WITH mine AS (
    SELECT held.id
    FROM (SELECT * FROM unnest($1::uuid[], $2::integer[]) AS c(id, epoch) ORDER BY id) AS c
    CROSS JOIN LATERAL (
        SELECT m.id FROM messages m
        WHERE m.id = c.id AND m.epoch = c.epoch AND m.state || '' = 'running'
        FOR NO KEY UPDATE
    ) AS held
)
UPDATE messages m SET lease_until = clock_timestamp() + make_interval(secs => $3) FROM mine
WHERE m.id = mine.id AND m.state || '' = 'running'
RETURNING m.id, m.cancel_requested AND NOT m.intent AS cancel
"""

CANCELED = """
SELECT told.id FROM unnest($1::uuid[], $2::integer[]) AS c(id, epoch)
CROSS JOIN LATERAL (
    SELECT m.id FROM messages m
    WHERE m.id = c.id AND m.epoch = c.epoch AND m.state || '' = 'running' AND m.cancel_requested AND NOT m.intent
    OFFSET 0
) AS told
"""

BEGIN = """
WITH mine AS (
    SELECT held.id
    FROM (SELECT * FROM unnest($1::uuid[], $2::integer[]) AS c(id, epoch) ORDER BY id) AS c
    CROSS JOIN LATERAL (
        SELECT m.id FROM messages m
        WHERE m.id = c.id AND m.epoch = c.epoch AND m.state || '' = 'running'
        FOR NO KEY UPDATE
    ) AS held
)
UPDATE messages m SET begun = $3 FROM mine
WHERE m.id = mine.id AND m.state || '' = 'running'
RETURNING m.id
"""

RELEASE = """
WITH mine AS (
    SELECT held.id
    FROM (SELECT * FROM unnest($1::uuid[], $2::integer[]) AS c(id, epoch) ORDER BY id) AS c
    CROSS JOIN LATERAL (
        SELECT m.id FROM messages m
        WHERE m.id = c.id AND m.epoch = c.epoch AND m.state || '' = 'running' AND (m.cancel_requested OR NOT $3)
        FOR NO KEY UPDATE
    ) AS held
)
UPDATE messages m
SET state = CASE WHEN m.cancel_requested THEN 'canceled' ELSE 'queued' END,
    finished_at = CASE WHEN m.cancel_requested THEN clock_timestamp() END,
    lease_until = NULL, begun = NULL, rings = 0, intent = false, admitted = m.admitted AND m.pace IS NULL,
    ring_at = CASE WHEN m.pace IS NULL THEN clock_timestamp() ELSE 'infinity' END,
    error = CASE WHEN m.intent THEN coalesce(m.error, '{}') || '{"definite": true}' ELSE m.error END
FROM mine
WHERE m.id = mine.id AND m.state || '' = 'running'
RETURNING m.id
"""
# A fence that was asked for and whose answer nobody heard was not passed: its intent is taken back, as a definite no.


class Renewal(msgspec.Struct, frozen=True):
    """What became of a lease: still ours, and whether somebody asked to cancel the message."""

    held: bool
    cancel: bool = False


async def renew(engine: AsyncEngine, claims: Sequence[Claim], lease: float) -> dict[UUID, Renewal]:
    """Push the leases of what runs `lease` seconds into the future; says of each whether it is still held."""
    if not claims:
        return {}
    ids, epochs = [claim.id for claim in claims], [claim.epoch for claim in claims]
    rows = await fetch(engine, RENEW, ids, epochs, lease)
    held = {row["id"]: Renewal(True, row["cancel"]) for row in rows}
    return {each: held.get(each, Renewal(False)) for each in ids}


async def begin(engine: AsyncEngine, claims: Sequence[Claim], together: int | None) -> None:
    """Note that these suspects begin now, `together` of them in a process that runs nothing else.

    None: other work begins in the process, so that a death of it says nothing about them any more.
    """
    await fetch(engine, BEGIN, [claim.id for claim in claims], [claim.epoch for claim in claims], together)


async def canceled(engine: AsyncEngine, claims: Sequence[Claim]) -> set[UUID]:
    """Which of these somebody asked to cancel since they were claimed."""
    if not claims:
        return set()
    rows = await fetch(engine, CANCELED, [claim.id for claim in claims], [claim.epoch for claim in claims])
    return {row["id"] for row in rows}


async def release(engine: AsyncEngine, claims: Sequence[Claim], *, only_canceled: bool = False) -> set[UUID]:
    """Give back what was not begun, or was stopped before it passed its fence: due at once, and it costs no attempt.

    What is to be canceled is canceled by it; `only_canceled` leaves everything else to its lease.
    """
    if not claims:
        return set()
    ids, epochs = [claim.id for claim in claims], [claim.epoch for claim in claims]
    rows = await fetch(engine, RELEASE, ids, epochs, only_canceled)
    return {row["id"] for row in rows}
