"""How a message becomes a ledger row, also inside somebody else's INSERT.

    WITH mail AS (INSERT INTO emails … RETURNING id)
    {INSERT} {SELECT} {unnest(first=3)} WHERE m.id IN (SELECT id FROM mail)

The values are columns of arrays in the order of COLUMNS: `columns([row(message), …])`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from callboard_workers.message import Message

COLUMNS: tuple[tuple[str, str], ...] = (
    ("id", "uuid"),
    ("tenant_id", "uuid"),
    ("actor", "text"),
    ("queue", "text"),
    ("priority", "smallint"),
    ("args", "text"),
    ("headers", "text"),
    ("request_id", "text"),
    ("key", "text"),
    ("max_crashes", "smallint"),
    ("uncertain_policy", "text"),
    ("delay", "double precision"),
    ("due_at", "timestamptz"),
    ("expires", "double precision"),
    ("extra", "text"),
)
"""What is sent for a message: name and array element type. `delay` and `expires` are seconds from Postgres' now.

`extra` is what few messages have, as JSON; null for all others.
"""

NAMES = ", ".join(name for name, _ in COLUMNS)

FIRST_RING = 5
"""Seconds after which the sweeper rings for a message that its sender should have rung for."""

INSERT = (
    "INSERT INTO messages (id, tenant_id, actor, queue, priority, args, headers, request_id, key, max_crashes,"
    " uncertain_policy, due_at, ring_at, rings, expires_at, follow, frees_key, gate, slots, pace, period)"
)

_DUE = "coalesce(m.due_at, clock_timestamp() + make_interval(secs => m.delay))"

SELECT = (
    "SELECT m.id, m.tenant_id, m.actor, m.queue, m.priority, m.args::jsonb, m.headers::jsonb, m.request_id, m.key,"
    f" m.max_crashes, m.uncertain_policy, coalesce({_DUE}, clock_timestamp()),"
    " CASE WHEN m.extra::jsonb ->> 'gate' IS NULL"
    f" THEN coalesce({_DUE}, clock_timestamp() + interval '{FIRST_RING} s') ELSE 'infinity' END,"
    " CASE WHEN m.due_at IS NULL AND m.delay IS NULL THEN 1 ELSE 0 END,"
    " clock_timestamp() + make_interval(secs => m.expires),"
    " m.extra::jsonb -> 'follow', coalesce((m.extra::jsonb ->> 'frees_key')::boolean, false),"
    " m.extra::jsonb ->> 'gate', (m.extra::jsonb ->> 'slots')::integer, (m.extra::jsonb ->> 'pace')::integer,"
    " (m.extra::jsonb ->> 'period')::double precision"
)

_encoder = msgspec.json.Encoder()


def unnest(first: int = 1) -> str:
    """The FROM clause over parameters `$first…`, aliased `m`."""
    arrays = ", ".join(f"${number}::{kind}[]" for number, (_, kind) in enumerate(COLUMNS, first))
    return f"FROM unnest({arrays}) AS m({NAMES})"


INSERT_ROWS = f"{INSERT} {SELECT} {unnest()} ON CONFLICT DO NOTHING RETURNING id"
"""A whole statement: insert what is not there yet, return the ids that are new."""


def row(message: Message) -> tuple[Any, ...]:
    """The values of one message, in the order of COLUMNS."""
    return (
        message.id,
        message.tenant_id,
        message.actor,
        message.queue,
        message.priority.number,
        _encoder.encode((message.args, message.kwargs)).decode(),
        _encoder.encode(message.headers).decode(),
        message.headers.get("request_id"),
        message.key,
        message.max_crashes,
        message.uncertain,
        message.delay,
        message.due_at,
        message.expires,
        _extra(message),
    )


def columns(rows: Iterable[Sequence[Any]]) -> tuple[list[Any], ...]:
    """Rows turned into the arrays that `unnest` takes."""
    return tuple(map(list, zip(*rows, strict=True))) or tuple([] for _ in COLUMNS)


def _extra(message: Message) -> str | None:
    if message.follow is None and message.gate is None and message.once is None:
        return None
    found = gated(message)
    if message.follow is not None:
        found["follow"] = message.follow
    if message.once is not None and message.once.until == "start":
        found["frees_key"] = True
    return _encoder.encode(found).decode()


def gated(message: Message) -> dict[str, Any]:
    """The columns of the message's gate that are not null."""
    if (gate := message.gate) is None:
        return {}
    found = {"gate": gate.name, "slots": gate.slots, "pace": gate.pace, "period": gate.period}
    return {name: value for name, value in found.items() if value is not None}


def spec(message: Message, *, takes: bool = False, step: bool = False, id: bool = True) -> dict[str, Any]:
    """A message that the settling of another one puts, as the database's `messages_put` reads it.

    `takes`: it is given the other's result after its own arguments. `step`: it is put, canceled, if the other never
    comes to its end. Its request, trace and, unless given, tenant are the other's.
    """
    found: dict[str, Any] = {
        "id": str(message.id) if id else None,
        "tenant_id": None if message.tenant_id is None else str(message.tenant_id),
        "actor": message.actor,
        "queue": message.queue,
        "priority": message.priority.number,
        "args": (message.args, message.kwargs),
        "max_crashes": message.max_crashes,
        "uncertain": message.uncertain,
        "delay": message.delay,
        "due_at": message.due_at,
        "expires": message.expires,
        "follow": message.follow,
        "takes": takes or None,
        "step": step or None,
        **gated(message),
    }
    return {name: value for name, value in found.items() if value is not None}
