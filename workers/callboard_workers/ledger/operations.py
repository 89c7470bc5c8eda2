"""What people do to messages: cancel, requeue, resolve. Each is one guarded statement."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from callboard_workers.ledger.database import fetch, fetch_for
from callboard_workers.ledger.json import storable
from callboard_workers.ledger.states import State

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

BATCH = 1_000
"""Messages of a queue that are canceled in one transaction."""

CANCEL = """
WITH told AS (
    UPDATE messages m
    SET state = CASE WHEN m.state = 'queued' THEN 'canceled' ELSE m.state END,
        cancel_requested = true,
        finished_at = CASE WHEN m.state = 'queued' THEN clock_timestamp() END
    WHERE m.id = $1 AND (m.state = 'queued' OR (m.state = 'running' AND NOT m.intent))
        AND ($2::uuid IS NULL OR m.tenant_id = $2)
    RETURNING m.state
)
SELECT state, true AS told FROM told
UNION ALL
SELECT m.state, false FROM messages m
WHERE m.id = $1 AND ($2::uuid IS NULL OR m.tenant_id = $2) AND NOT EXISTS (SELECT FROM told)
"""

WAITING = """
SELECT count(*) FILTER (WHERE state = 'queued') AS queued, count(*) FILTER (WHERE state = 'running') AS running,
    clock_timestamp() AS now
FROM messages WHERE state IN ('queued', 'running') AND queue = $1
"""

CANCEL_QUEUED = """
WITH chosen AS (
    SELECT id FROM messages WHERE state = 'queued' AND queue = $1 AND created_at <= $2
    LIMIT $3
    FOR NO KEY UPDATE SKIP LOCKED
),
moved AS (
    UPDATE messages m
    SET state = 'canceled', cancel_requested = true, epoch = m.epoch + 1, finished_at = clock_timestamp()
    FROM chosen
    WHERE m.id = chosen.id AND m.state || '' = 'queued'
    RETURNING m.id, m.epoch
),
noted AS (
    INSERT INTO message_attempts (message_id, epoch, outcome, detail)
    SELECT id, epoch, 'canceled', $4::jsonb FROM moved
)
SELECT id FROM moved
"""

REQUEUE = """
WITH chosen AS (
    SELECT m.id FROM messages m
    WHERE m.id = ANY($1::uuid[]) AND m.state || '' IN ('dead', 'held', 'uncertain')
        AND ($2::uuid IS NULL OR m.tenant_id = $2)
        AND NOT EXISTS (
            SELECT FROM messages o
            WHERE o.tenant_id = m.tenant_id AND o.actor = m.actor AND o.key = m.key AND o.id <> m.id
                AND o.state IN ('queued', 'running', 'uncertain', 'held')
            UNION ALL
            SELECT FROM messages o
            WHERE m.tenant_id IS NULL AND o.tenant_id IS NULL AND o.actor = m.actor AND o.key = m.key AND o.id <> m.id
                AND o.state IN ('queued', 'running', 'uncertain', 'held')
        )
    ORDER BY m.id
    FOR NO KEY UPDATE OF m
),
moved AS (
    UPDATE messages m
    SET state = 'queued', epoch = m.epoch + 1, intent = false, crashes = 0, due_at = clock_timestamp(),
        ring_at = CASE WHEN m.gate IS NULL THEN clock_timestamp() ELSE 'infinity' END, admitted = false, rings = 0,
        expires_at = NULL, cancel_requested = false, finished_at = NULL
    FROM chosen
    WHERE m.id = chosen.id
        AND m.state || '' IN ('dead', 'held', 'uncertain')
    RETURNING m.id, m.epoch
),
noted AS (
    INSERT INTO message_attempts (message_id, epoch, outcome, started_at, worker, detail)
    SELECT id, epoch, 'requeued', clock_timestamp(), $3, $4::jsonb FROM moved
)
SELECT id FROM moved
"""
# The epoch rises, so that a late word from an attempt before the requeue finds nothing to change.

RESOLVE = """
WITH chosen AS (
    SELECT m.id FROM messages m
    WHERE m.id = ANY($1::uuid[]) AND m.state || '' = ANY($2::text[]) AND ($3::uuid IS NULL OR m.tenant_id = $3)
    ORDER BY m.id
    FOR NO KEY UPDATE OF m
),
moved AS (
    UPDATE messages m
    SET state = $4, epoch = m.epoch + 1, finished_at = clock_timestamp(),
        outcome = coalesce($5::jsonb, m.outcome),
        error = CASE
            WHEN $4 = 'done' THEN NULL
            WHEN $6::jsonb IS NULL THEN m.error
            ELSE $6::jsonb || jsonb_build_object('at', clock_timestamp())
        END
    FROM chosen
    WHERE m.id = chosen.id AND m.state || '' = ANY($2::text[])
    RETURNING m.id, m.epoch
),
noted AS (
    INSERT INTO message_attempts (message_id, epoch, outcome, detail)
    SELECT id, epoch, 'resolved', $7::jsonb FROM moved
)
SELECT id FROM moved
"""

RESOLVABLE: dict[State, tuple[State, ...]] = {
    State.DONE: (State.UNCERTAIN, State.HELD, State.DEAD),
    State.DEAD: (State.UNCERTAIN, State.HELD),
    State.HELD: (State.UNCERTAIN,),
}
"""How a doubt may be resolved, and of which states."""


class Canceling(enum.StrEnum):
    """What became of a wish to cancel."""

    CANCELED = "canceled"
    REQUESTED = "requested"
    """It is running; its worker is told within seconds, and its fence is closed from now on."""
    REFUSED = "refused"
    """It has finished, or has passed the point of no return."""
    UNKNOWN = "unknown"


async def cancel(engine: AsyncEngine, id: UUID, tenant_id: UUID | None = None) -> Canceling:
    """Cancel a message: at once if it waits, as soon as possible if it runs; again is harmless."""
    rows = await fetch_for(engine, tenant_id, CANCEL, id, tenant_id)
    if not rows:
        return Canceling.UNKNOWN
    state, told = State(rows[0]["state"]), rows[0]["told"]
    if state is State.CANCELED:
        return Canceling.CANCELED
    return Canceling.REQUESTED if told and state is State.RUNNING else Canceling.REFUSED


class Waiting(NamedTuple):
    """What a queue holds; `at`: the moment of the count, by Postgres' clock."""

    queued: int
    running: int
    at: dt.datetime


async def waiting(engine: AsyncEngine, queue: str) -> Waiting:
    """Count the messages of a queue that wait, for their time too, and those that run."""
    [row] = await fetch(engine, WAITING, queue)
    return Waiting(row["queued"], row["running"], row["now"])


async def cancel_queued(
    engine: AsyncEngine, queue: str, *, until: dt.datetime, by: str, reason: str = ""
) -> AsyncIterator[int]:
    """Cancel all that waits in a queue and was accepted before `until`, in transactions of 1,000; yields their sizes.

    What runs goes on. Each message's history keeps who canceled it and why.
    """
    told = storable({"by": by, "reason": reason})
    while count := len(await fetch(engine, CANCEL_QUEUED, queue, until, BATCH, told)):
        yield count


async def requeue(
    engine: AsyncEngine, ids: Sequence[UUID], *, by: str, tenant_id: UUID | None = None, reason: str = ""
) -> set[UUID]:
    """Queue dead, held or uncertain messages again, each at most once; the ids that were.

    Left out: any other state, and one whose key another unfinished message bears by now. `by` says who, for the
    record in message_attempts. Errors stay counted, crashes do not.
    """
    rows = await fetch_for(engine, tenant_id, REQUEUE, list(ids), tenant_id, by, storable({"by": by, "reason": reason}))
    return {row["id"] for row in rows}


async def resolve(
    connection: AsyncConnection,
    ids: Sequence[UUID],
    to: State,
    *,
    by: str,
    tenant_id: UUID | None = None,
    reason: str = "",
    outcome: dict[str, object] | None = None,
    error: dict[str, object] | None = None,
) -> set[UUID]:
    """Settle doubts, in the caller's transaction; the ids of those that were in doubt.

    What is `uncertain`, `held` or `dead` is DONE after all; what is `uncertain` or `held` is DEAD; what is `uncertain`
    is HELD. `by` and `reason` say who and why, for the record in message_attempts; `outcome` and `error` become the
    row's. Raises ValueError for any other state.
    """
    if (froms := RESOLVABLE.get(to)) is None:
        raise ValueError(f"a doubt is resolved to done, dead or held, not to {to}")
    told = {"by": by, "reason": reason, "to": to.value, **({"evidence": outcome} if outcome else {})}
    values = (list(ids), [each.value for each in froms], tenant_id, to.value, _json(outcome), _json(error))
    found = await connection.exec_driver_sql(RESOLVE, (*values, storable(told)))
    return set(found.scalars())


def _json(value: dict[str, object] | None) -> str | None:
    return None if value is None else storable(value)
