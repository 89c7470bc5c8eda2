"""Settle: write down how an attempt ended, once, whatever happened in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_never
from uuid import UUID

import msgspec

from callboard_workers.ledger.claims import Claim
from callboard_workers.ledger.database import fetch
from callboard_workers.ledger.json import storable
from callboard_workers.ledger.states import State
from callboard_workers.policy import (
    Canceled,
    DeadLetter,
    Done,
    Expired,
    Ignored,
    Outcome,
    RetryAt,
    Snoozed,
    Unknown,
    word,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

HORIZON = 400 * 86_400.0
"""The furthest a message is put off, in seconds."""


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended, in the ledger's terms; JSON is text already. `delay`: seconds until it is due again."""

    id: UUID
    epoch: int
    state: State
    outcome: str
    delay: float | None = None
    error: str | None = None
    detail: str | None = None
    result: str | None = None
    keep_for: float | None = None
    attempts: int = 0
    snoozes: int = 0
    definite: bool = False
    noted: bool = True
    again: bool = False


FIELDS: tuple[tuple[str, str], ...] = (
    ("id", "uuid"),
    ("epoch", "integer"),
    ("state", "text"),
    ("outcome", "text"),
    ("delay", "double precision"),
    ("error", "text"),
    ("detail", "text"),
    ("result", "text"),
    ("keep_for", "double precision"),
    ("attempts", "integer"),
    ("snoozes", "integer"),
    ("definite", "boolean"),
    ("noted", "boolean"),
    ("again", "boolean"),
)

_arrays = ", ".join(f"${number}::{kind}[]" for number, (_, kind) in enumerate(FIELDS, 1))
_names = ", ".join(name for name, _ in FIELDS)

SETTLE = f"""
WITH item AS (SELECT * FROM unnest({_arrays}) AS i({_names})),
mine AS (
    SELECT i.*, held.member_of
    FROM (SELECT * FROM item ORDER BY id) AS i
    CROSS JOIN LATERAL (
        SELECT m.id, m.follow ->> 'group' AS member_of FROM messages m
        WHERE m.id = i.id AND m.epoch = i.epoch
        FOR NO KEY UPDATE
    ) AS held
),
counted AS (
    SELECT g.id FROM message_groups g
    WHERE g.id = ANY (ARRAY(SELECT member_of::uuid FROM mine WHERE member_of IS NOT NULL))
    ORDER BY g.id FOR NO KEY UPDATE
),
moved AS (
    UPDATE messages m
    SET state = CASE
            WHEN i.state = 'queued' AND m.cancel_requested AND m.state = 'running' THEN 'canceled'
            WHEN i.state = 'queued' AND m.cancel_requested THEN 'dead'
            ELSE i.state
        END,
        intent = m.intent AND i.state IN ('done', 'uncertain'),
        attempts = m.attempts + i.attempts,
        snoozes = m.snoozes + i.snoozes,
        crashes = 0, deaths = 0, isolation = NULL, begun = NULL,
        due_at = coalesce(clock_timestamp() + make_interval(secs => i.delay), m.due_at),
        ring_at = CASE
            WHEN m.gate IS NOT NULL AND i.state = 'queued' THEN 'infinity'
            ELSE coalesce(clock_timestamp() + make_interval(secs => i.delay), m.ring_at)
        END,
        admitted = m.admitted AND i.state <> 'queued',
        rings = CASE WHEN i.state = 'queued' THEN 0 ELSE m.rings END,
        lease_until = NULL,
        error = CASE
            WHEN i.state = 'done' THEN NULL
            WHEN i.error IS NULL AND NOT m.intent THEN m.error
            ELSE coalesce(i.error::jsonb, '{{}}') || jsonb_build_object('at', clock_timestamp())
                || CASE WHEN i.definite THEN '{{"definite": true}}'::jsonb ELSE '{{}}'::jsonb END
        END,
        outcome = coalesce(i.detail::jsonb, m.outcome),
        result = i.result::jsonb,
        result_until = CASE WHEN i.result IS NOT NULL THEN clock_timestamp() + make_interval(secs => i.keep_for) END,
        finished_at = CASE WHEN i.state = 'queued' AND NOT m.cancel_requested THEN NULL ELSE clock_timestamp() END
    FROM mine i
    WHERE m.id = i.id AND m.epoch = i.epoch
        AND (SELECT count(*) FROM counted) >= 0
        AND (
            (m.state || '' = 'running' AND (NOT m.intent OR i.definite OR i.state IN ('done', 'uncertain')))
            OR (m.state || '' = 'uncertain' AND (i.state = 'done' OR (i.definite AND i.state IN ('queued', 'dead'))))
        )
    RETURNING m.id, m.epoch, m.state, m.started_at, m.worker, i.outcome, i.error, i.detail, i.noted
),
noted AS (
    INSERT INTO message_attempts (message_id, epoch, outcome, started_at, worker, detail)
    SELECT id, epoch, outcome, started_at, worker,
        nullif(coalesce(detail::jsonb, '{{}}')
            || CASE WHEN error IS NULL THEN '{{}}'::jsonb ELSE jsonb_build_object('error', error::jsonb) END, '{{}}')
    FROM moved WHERE noted
    ON CONFLICT (message_id, epoch) DO UPDATE
    SET outcome = excluded.outcome, ended_at = clock_timestamp(), detail = excluded.detail
)
SELECT id, state FROM moved
UNION ALL
SELECT m.id, m.state FROM item i CROSS JOIN LATERAL (
    SELECT m.id, m.state FROM messages m WHERE m.id = i.id AND m.epoch = i.epoch AND m.state || '' = i.state OFFSET 0
) AS m
WHERE i.again
"""  # noqa: S608 (names of our own columns)
# The groups whose members end are locked in the order of their ids before any of them is counted down, so that two
# batches never deadlock over them. The last part reads the rows as they were before: it answers for a settle that was
# written though its answer was lost.


async def settle(engine: AsyncEngine, items: list[Settlement]) -> list[State | None]:
    """Settle a batch; the state each row is in now, None for an attempt whose message is no longer its own."""
    columns = [[getattr(item, name) for item in items] for name, _ in FIELDS]
    rows = await fetch(engine, SETTLE, *columns)
    now = {row["id"]: State(row["state"]) for row in rows}
    return [now.get(item.id) for item in items]


def settlement(
    claim: Claim,
    outcome: Outcome,
    *,
    fenced: bool = False,
    report: dict[str, Any] | None = None,
    keep: bool = False,
    keep_for: float | None = None,
) -> Settlement | None:
    """The ledger's terms for an outcome; None if there is nothing to write.

    `keep`: the actor's result is stored, for `keep_for` seconds or as long as the row.

    Before the fence every outcome is definite: nothing can have happened. After it, only what the actor says is.
    """
    state, attempts, snoozes, delay = _terms(outcome)
    if state is None:
        return None
    detail = {**(report or {}), **(outcome.detail or {})}
    result = outcome.result if isinstance(outcome, Done) and keep else None
    return Settlement(
        id=claim.id,
        epoch=claim.epoch,
        state=state,
        outcome=word(outcome),
        delay=None if delay is None else min(delay, HORIZON),
        error=_error(outcome),
        detail=storable(detail) if detail else None,
        result=None if result is None else storable(result),
        keep_for=keep_for,
        attempts=attempts,
        snoozes=snoozes,
        definite=outcome.definite or not fenced,
        noted=not isinstance(outcome, Done) or bool(detail),
    )


def _terms(outcome: Outcome) -> tuple[State | None, int, int, float | None]:  # noqa: PLR0911 (one answer per outcome)
    """State, attempts and snoozes to count, delay."""
    match outcome:
        case Done():
            return State.DONE, 0, 0, None
        case RetryAt():
            return State.QUEUED, 1, 0, outcome.delay
        case Snoozed():
            return State.QUEUED, 0, 1, outcome.delay
        case DeadLetter():
            return State.DEAD, 1, 0, None
        case Expired():
            return State.EXPIRED, 0, 0, None
        case Unknown():
            return State.UNCERTAIN, 1, 0, None
        case Canceled():
            return State.CANCELED, 0, 0, None
        case Ignored():
            return None, 0, 0, None
        case _:
            assert_never(outcome)


def _error(outcome: Outcome) -> str | None:
    if isinstance(outcome, Done) or (outcome.error is None and not outcome.reason):
        return None
    return storable({**(outcome.error or {}), **({"reason": outcome.reason} if outcome.reason else {})})
