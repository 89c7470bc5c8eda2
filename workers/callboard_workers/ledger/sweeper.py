"""Sweep: ring again, expire, take back from the dead, quarantine, put in doubt, resend.

Each duty is one statement and one transaction: at most `limit` rows, found through a partial index, skipping what
others hold. One sweeper of the fleet works at a time (an advisory lock); any number at once does no harm.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import structlog

from callboard_workers.ledger.database import LOCK, fetch
from callboard_workers.ledger.rows import FIRST_RING
from callboard_workers.message import Message, Priority

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

log = structlog.stdlib.get_logger("workers.sweeper")

Ring = Callable[[Sequence[Message]], None]
Depth = Callable[[str], Awaitable[int]]

LIMIT = 500
PLENTY = 1_000
"""Doorbells in a queue above which rows that were rung for already are left to it."""
PATIENCE = 600.0
"""Seconds overdue after which a row is rung for however long the queue is."""
DOUBT = 660.0
"""Seconds past the lease after which a fenced attempt is in doubt: 600 s for the answer, and a margin."""
LONGEST_RING = 3_600

_GATE = f"(SELECT pg_try_advisory_xact_lock({LOCK}))"

_MESSAGE = "m.id, m.actor, m.queue, m.priority, m.headers::text AS headers, m.tenant_id, m.state"

# An index is bounded by statement_timestamp(): clock_timestamp() is volatile, so it would be read to its end.
# What a duty found is looked up by its ids, whatever the planner believes: see callboard_workers.ledger.claims.
RING = f"""
WITH due AS (
    SELECT id, rings AS rung FROM messages
    WHERE {_GATE} AND state = 'queued' AND ring_at <= statement_timestamp()
    ORDER BY ring_at LIMIT $1
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE messages m
SET rings = m.rings + 1,
    ring_at = clock_timestamp() + least({LONGEST_RING}, {FIRST_RING} * 2 ^ least(m.rings, 20)) * interval '1 second'
FROM due WHERE m.id = due.id AND m.state || '' = 'queued'
RETURNING {_MESSAGE}, due.rung, extract(epoch FROM clock_timestamp() - m.due_at)::float8 AS overdue
"""  # noqa: S608 (our own constants)

EXPIRE = f"""
WITH late AS (
    SELECT id FROM messages
    WHERE {_GATE} AND state = 'queued' AND expires_at <= statement_timestamp()
    ORDER BY expires_at LIMIT $1
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE messages m SET state = 'expired', finished_at = clock_timestamp()
FROM late WHERE m.id = late.id AND m.state || '' = 'queued'
RETURNING {_MESSAGE}
"""  # noqa: S608 (our own constants)

# Only what ran alone in its process when that died was the cause. Everything else becomes a suspect: at most half of
# those that were together may run together next time, in a process that runs nothing else.
_SUSPECTED = """\
        isolation = CASE
            WHEN m.begun IS NOT NULL THEN (m.begun + 1) / 2
            ELSE coalesce(m.isolation, least((lapsed.together + 1) / 2, 10000))
        END,
        deaths = least(m.deaths + 1, 10000), begun = NULL,
        crashes = m.crashes + (m.begun IS NOT DISTINCT FROM 1)::int,
"""
_ALONE = "lapsed.begun IS NOT DISTINCT FROM 1"
_GUILTY = f"{_ALONE} AND m.crashes + 1 >= m.max_crashes AND NOT m.cancel_requested"

RECLAIM = f"""
WITH found AS (
    SELECT id, worker, begun FROM messages
    WHERE {_GATE} AND state = 'running' AND NOT intent AND lease_until < clock_timestamp()
    ORDER BY id LIMIT $1
    FOR NO KEY UPDATE SKIP LOCKED
),
lapsed AS (
    SELECT id, begun, count(*) OVER (PARTITION BY worker) AS together FROM found
),
moved AS (
    UPDATE messages m
    SET state = CASE WHEN m.cancel_requested THEN 'canceled' WHEN {_GUILTY} THEN 'dead' ELSE 'queued' END,
{_SUSPECTED}        lease_until = NULL, rings = 1, admitted = m.admitted AND m.pace IS NULL,
        ring_at = CASE WHEN m.pace IS NULL THEN clock_timestamp() + interval '{FIRST_RING} s' ELSE 'infinity' END,
        finished_at = CASE WHEN m.cancel_requested OR ({_GUILTY}) THEN clock_timestamp() END,
        error = CASE WHEN {_GUILTY} THEN
            jsonb_build_object('type', 'Quarantined', 'reason', 'quarantined', 'at', clock_timestamp(),
                'message', format('its worker died %s times while it ran', m.crashes + 1))
            ELSE m.error END
    FROM lapsed
    WHERE m.id = lapsed.id AND m.state || '' = 'running'
        AND NOT m.intent AND m.lease_until < clock_timestamp()
    RETURNING {_MESSAGE}, m.epoch, m.started_at, m.worker, {_ALONE} AS alone
),
noted AS (
    INSERT INTO message_attempts (message_id, epoch, outcome, started_at, worker)
    SELECT id, epoch, CASE WHEN alone THEN 'crashed' ELSE 'interrupted' END, started_at, worker FROM moved
    ON CONFLICT DO NOTHING
)
SELECT * FROM moved
"""  # noqa: S608 (our own constants)

DOUBTFUL = f"""
WITH found AS (
    SELECT id, worker FROM messages
    WHERE {_GATE} AND state = 'running' AND intent AND lease_until < clock_timestamp() - make_interval(secs => $2)
    ORDER BY id LIMIT $1
    FOR NO KEY UPDATE SKIP LOCKED
),
lapsed AS (
    SELECT id, count(*) OVER (PARTITION BY worker) AS together FROM found
),
moved AS (
    UPDATE messages m
    SET state = 'uncertain', lease_until = NULL, finished_at = clock_timestamp(),
{_SUSPECTED}        error = jsonb_build_object('type', 'Uncertain', 'at', clock_timestamp(),
            'message', 'its worker died past the point of no return')
    FROM lapsed
    WHERE m.id = lapsed.id AND m.state || '' = 'running'
        AND m.intent AND m.lease_until < clock_timestamp() - make_interval(secs => $2)
    RETURNING {_MESSAGE}, m.epoch, m.started_at, m.worker, m.error
),
noted AS (
    INSERT INTO message_attempts (message_id, epoch, outcome, started_at, worker, detail)
    SELECT id, epoch, 'uncertain', started_at, worker, jsonb_build_object('error', error) FROM moved
    ON CONFLICT DO NOTHING
)
SELECT * FROM moved
"""  # noqa: S608 (our own constants)

RESEND = f"""
WITH grace_over AS (
    SELECT id FROM messages
    WHERE {_GATE} AND state = 'uncertain' AND uncertain_policy = 'resend'
        AND NOT cancel_requested AND finished_at < statement_timestamp() - make_interval(secs => $2)
        AND (
            SELECT count(*) FROM message_attempts a WHERE a.message_id = messages.id AND a.outcome = 'resent'
        ) < messages.max_crashes
    ORDER BY finished_at LIMIT $1
    FOR NO KEY UPDATE SKIP LOCKED
),
moved AS (
    UPDATE messages m
    SET state = 'queued', epoch = m.epoch + 1, intent = false, due_at = clock_timestamp(), finished_at = NULL,
        rings = 1, admitted = false,
        ring_at = CASE WHEN m.gate IS NULL THEN clock_timestamp() + interval '{FIRST_RING} s' ELSE 'infinity' END
    FROM grace_over
    WHERE m.id = grace_over.id AND m.state || '' = 'uncertain'
    RETURNING {_MESSAGE}, m.epoch
),
noted AS (
    INSERT INTO message_attempts (message_id, epoch, outcome, started_at)
    SELECT id, epoch, 'resent', clock_timestamp() FROM moved
)
SELECT * FROM moved
"""  # noqa: S608 (our own constants)


ADMIT = f"""
SELECT {_MESSAGE} FROM (SELECT DISTINCT name FROM unnest($1::text[]) AS g(name) ORDER BY name) AS g,
    LATERAL messages_admit(g.name) AS m
"""  # noqa: S608 (our own constants)

ADMIT_ALL = f"SELECT {_MESSAGE} FROM messages_admit_all({LOCK}) AS m"  # noqa: S608 (our own constants)

# What was put last is rung for last: among many that are due, a follower is one of the newest.
FOLLOWERS = f"""
SELECT {_MESSAGE} FROM (
    SELECT id FROM messages WHERE state = 'queued' AND ring_at <= statement_timestamp() ORDER BY ring_at DESC LIMIT $1
) AS newest JOIN messages m ON m.id = newest.id
WHERE m.headers ->> 'parent_id' = ANY($2::text[])
"""  # noqa: S608 (our own constants)


class Swept(msgspec.Struct, frozen=True, kw_only=True):
    """What one sweep did, by message; `reclaimed` from dead workers includes the `quarantined`."""

    rung: list[Message] = []
    postponed: list[Message] = []
    expired: list[Message] = []
    reclaimed: list[Message] = []
    quarantined: list[Message] = []
    doubtful: list[Message] = []
    resent: list[Message] = []
    admitted: list[Message] = []

    @property
    def full(self) -> bool:
        """Whether a duty found as much as it may do at once: sweep again soon."""
        return any(len(getattr(self, name)) >= LIMIT for name in self.__struct_fields__)


async def sweep(
    engine: AsyncEngine, ring: Ring, *, depth: Depth | None = None, doubt: float = DOUBT, limit: int = LIMIT
) -> Swept:
    """Do every duty once. `depth(queue)` tells how many doorbells a queue holds, to spare it useless ones."""
    expired = await fetch(engine, EXPIRE, limit)
    reclaimed = await fetch(engine, RECLAIM, limit)
    doubtful = await fetch(engine, DOUBTFUL, limit, doubt)
    resent = await fetch(engine, RESEND, limit, doubt)
    admitted = _messages(await fetch(engine, ADMIT_ALL))
    due = await fetch(engine, RING, limit)
    rung, postponed = await _divide(due, depth)
    again = [_message(row) for row in reclaimed if row["state"] == "queued"] + _messages(resent)
    if rung or again or admitted:
        ring([*rung, *again, *admitted])
    return Swept(
        rung=rung,
        postponed=postponed,
        expired=_messages(expired),
        reclaimed=_messages(reclaimed),
        quarantined=[_message(row) for row in reclaimed if row["state"] == "dead"],
        doubtful=_messages(doubtful),
        resent=_messages(resent),
        admitted=admitted,
    )


async def admit(engine: AsyncEngine, gates: Sequence[str]) -> list[Message]:
    """Let in what these gates have room for now, the oldest first; the messages, to be rung for."""
    return _messages(await fetch(engine, ADMIT, list(gates)))


async def followers(engine: AsyncEngine, parents: Collection[UUID]) -> list[Message]:
    """Messages that the settling of these has put and nobody has rung for yet, of the newest that are due."""
    return _messages(await fetch(engine, FOLLOWERS, LIMIT, [str(parent) for parent in parents]))


async def _divide(due: Sequence[Any], depth: Depth | None) -> tuple[list[Message], list[Message]]:
    """Which rows to ring for now, and which to leave to the doorbells that their long queue still holds."""
    depths = {queue: await depth(queue) if depth else 0 for queue in {row["queue"] for row in due}}
    rung: list[Message] = []
    postponed: list[Message] = []
    for row in due:
        waits = row["rung"] > 0 and row["overdue"] < PATIENCE and depths[row["queue"]] >= PLENTY
        (postponed if waits else rung).append(_message(row))
    return rung, postponed


def _messages(rows: Sequence[Any]) -> list[Message]:
    return [_message(row) for row in rows]


def _message(row: Any) -> Message:
    return Message(
        id=row["id"],
        actor=row["actor"],
        queue=row["queue"],
        priority=Priority.of(row["priority"]),
        tenant_id=row["tenant_id"],
        headers=msgspec.json.decode(row["headers"]),
    )
