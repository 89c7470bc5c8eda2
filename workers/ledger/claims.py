"""Claim: answer a doorbell by taking the row it names, or find that it is not to be had."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from workers.ledger.statement import fetch

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

CLAIM = """
WITH bell AS (
    SELECT free.id, b.worker, b.lease
    FROM (SELECT * FROM unnest($1::uuid[], $2::text[], $3::double precision[]) AS b(id, worker, lease) ORDER BY id) AS b
    CROSS JOIN LATERAL (
        SELECT m.id FROM messages m
        WHERE m.id = b.id AND m.state || '' = 'queued' AND m.due_at <= clock_timestamp() AND NOT m.cancel_requested
            AND (m.gate IS NULL OR m.admitted)
            AND (m.expires_at IS NULL OR m.expires_at > clock_timestamp())
        FOR NO KEY UPDATE
    ) AS free
)
UPDATE messages m
SET state = 'running', epoch = m.epoch + 1, intent = false, worker = bell.worker, started_at = clock_timestamp(),
    lease_until = clock_timestamp() + make_interval(secs => bell.lease),
    error = m.error - 'definite', progress = NULL, finished_at = NULL,
    key = CASE WHEN m.frees_key THEN NULL ELSE m.key END
FROM bell
WHERE m.id = bell.id AND m.state || '' = 'queued'
RETURNING m.id, m.epoch, m.actor, m.queue, m.priority, m.args::text AS args, m.headers::text AS headers, m.tenant_id,
    m.attempts, m.crashes, m.snoozes, m.follow::text AS follow, m.gate,
    extract(epoch FROM clock_timestamp() - m.due_at)::float8 AS waited
"""
# Rows are locked in the order of their ids, here and in every other batch, so that two batches never deadlock.
# `state || ''`, and a look-up for each id: the index of what is queued must not tempt the planner. Statistics made
# while the queue was empty, or none, say that it is short, and then each claim would read the whole backlog. A plan for
# any values takes a batch for ten rows: what joins it otherwise than by such a look-up compares each row with each.

_json = msgspec.json.Decoder()


class Bell(msgspec.Struct, frozen=True):
    """Who wants which row, for how long (seconds)."""

    id: UUID
    worker: str
    lease: float


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A row that is ours until its lease lapses; `epoch` is the proof. `waited`: seconds from due to claimed."""

    id: UUID
    epoch: int
    actor: str
    queue: str
    priority: int
    args: list[Any]
    kwargs: dict[str, Any]
    headers: dict[str, str]
    tenant_id: UUID | None
    attempts: int
    crashes: int
    snoozes: int
    waited: float
    follow: dict[str, Any] | None = None
    gate: str | None = None


async def claim(engine: AsyncEngine, bells: list[Bell]) -> list[Claim | None]:
    """Claim a batch in one compare-and-set; None for a row that is taken, not due, ended, expired or invented."""
    wanted = {bell.id: bell for bell in reversed(bells)}
    rows = await fetch(
        engine,
        CLAIM,
        [bell.id for bell in wanted.values()],
        [bell.worker for bell in wanted.values()],
        [bell.lease for bell in wanted.values()],
    )
    got = {row["id"]: _claim(row) for row in rows}
    return [got.pop(bell.id, None) for bell in bells]  # a second bell for the same row in one batch gets None


def _claim(row: Any) -> Claim:
    args, kwargs = _json.decode(row["args"])
    return Claim(
        id=row["id"],
        epoch=row["epoch"],
        actor=row["actor"],
        queue=row["queue"],
        priority=row["priority"],
        args=args,
        kwargs=kwargs,
        headers=_json.decode(row["headers"]),
        tenant_id=row["tenant_id"],
        attempts=row["attempts"],
        crashes=row["crashes"],
        snoozes=row["snoozes"],
        waited=max(0.0, row["waited"]),
        follow=None if row["follow"] is None else _json.decode(row["follow"]),
        gate=row["gate"],
    )
