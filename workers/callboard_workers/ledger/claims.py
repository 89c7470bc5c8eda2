"""Claim: answer a doorbell by taking the row it names, or find that it is not to be had."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from callboard_workers.ledger.database import fetch

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

CLAIM = """
WITH bell AS (
    SELECT free.*, b.worker, b.lease, CASE b.take WHEN 0 THEN free.isolation IS NULL ELSE b.take = 1 END AS taken
    FROM (
        SELECT * FROM unnest($1::uuid[], $2::text[], $3::double precision[], $4::smallint[])
            AS b(id, worker, lease, take)
        ORDER BY id
    ) AS b
    CROSS JOIN LATERAL (
        SELECT m.id, m.isolation, m.deaths FROM messages m
        WHERE m.id = b.id AND m.state || '' = 'queued' AND m.due_at <= clock_timestamp() AND NOT m.cancel_requested
            AND (m.gate IS NULL OR m.admitted)
            AND (m.expires_at IS NULL OR m.expires_at > clock_timestamp())
        FOR NO KEY UPDATE
    ) AS free
),
claimed AS (
    UPDATE messages m
    SET state = 'running', epoch = m.epoch + 1, intent = false, worker = bell.worker, started_at = clock_timestamp(),
        lease_until = clock_timestamp() + make_interval(secs => bell.lease),
        error = m.error - 'definite', progress = NULL, finished_at = NULL,
        key = CASE WHEN m.frees_key THEN NULL ELSE m.key END
    FROM bell
    WHERE bell.taken AND m.id = bell.id AND m.state || '' = 'queued'
    RETURNING m.id, m.isolation, m.deaths, m.epoch, m.actor, m.queue, m.priority, m.args::text AS args,
        m.headers::text AS headers, m.tenant_id, m.attempts, m.crashes, m.snoozes, m.follow::text AS follow, m.gate,
        extract(epoch FROM clock_timestamp() - m.due_at)::float8 AS waited
)
SELECT * FROM claimed
UNION ALL
SELECT id, isolation, deaths, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM bell WHERE NOT taken AND isolation IS NOT NULL
"""
# Rows are locked in the order of their ids, here and in every other batch, so that two batches never deadlock.
# `state || ''`, and a look-up for each id: the index of what is queued must not tempt the planner. Statistics made
# while the queue was empty, or none, say that it is short, and then each claim would read the whole backlog. A plan for
# any values takes a batch for ten rows: what joins it otherwise than by such a look-up compares each row with each.

_json = msgspec.json.Decoder()


class Take(enum.IntEnum):
    """Which rows a claim takes; a suspect that it does not take is reported."""

    UNSUSPECTED = 0
    ANY = 1
    NOTHING = 2


class Bell(msgspec.Struct, frozen=True):
    """Who wants which row, for how long (seconds)."""

    id: UUID
    worker: str
    lease: float
    take: Take = Take.UNSUSPECTED


class Suspect(msgspec.Struct, frozen=True):
    """A row that is due and whose last worker died: not claimed, because nothing else may run beside it.

    At most `limit` suspects may run together. `deaths`: workers that died holding it since it last settled.
    """

    id: UUID
    limit: int
    deaths: int


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
    deaths: int = 0
    follow: dict[str, Any] | None = None
    gate: str | None = None


async def claim(engine: AsyncEngine, bells: list[Bell]) -> list[Claim | Suspect | None]:
    """Claim a batch in one compare-and-set; None for a row that is taken, not due, ended, expired or invented."""
    wanted = {bell.id: bell for bell in reversed(bells)}
    rows = await fetch(
        engine,
        CLAIM,
        [bell.id for bell in wanted.values()],
        [bell.worker for bell in wanted.values()],
        [bell.lease for bell in wanted.values()],
        [bell.take for bell in wanted.values()],
    )
    got = {row["id"]: _suspect(row) if row["epoch"] is None else _claim(row) for row in rows}
    return [got.pop(bell.id, None) for bell in bells]  # a second bell for the same row in one batch gets None


def _suspect(row: Any) -> Suspect:
    return Suspect(row["id"], row["isolation"], row["deaths"])


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
        deaths=row["deaths"],
    )
