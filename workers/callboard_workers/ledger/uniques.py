"""Unique and debounced messages: one row per key, in the caller's transaction."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from callboard_workers.errors import Duplicate, Overloaded
from callboard_workers.ledger import rows
from callboard_workers.message import Message, Once

TAKE = """
INSERT INTO message_keys (tenant_id, actor, key, until, message_id)
VALUES ($1, $2, $3, clock_timestamp() + make_interval(secs => $4), $5)
ON CONFLICT (tenant_id, actor, key) DO UPDATE SET until = excluded.until, message_id = excluded.message_id
WHERE message_keys.until <= clock_timestamp()
RETURNING message_id
"""

# A tenant and no tenant are two look-ups, of which one is made: no index is searched by IS NOT DISTINCT FROM.
HOLDER = """
SELECT message_id FROM message_keys WHERE tenant_id = $1 AND actor = $2 AND key = $3
UNION ALL
SELECT message_id FROM message_keys WHERE $1::uuid IS NULL AND tenant_id IS NULL AND actor = $2 AND key = $3
"""

STANDING = """
SELECT id, state, created_at FROM messages
WHERE tenant_id = $1 AND actor = $2 AND key = $3 AND state IN ('queued', 'running', 'uncertain', 'held')
UNION ALL
SELECT id, state, created_at FROM messages
WHERE $1::uuid IS NULL AND tenant_id IS NULL AND actor = $2 AND key = $3
    AND state IN ('queued', 'running', 'uncertain', 'held')
"""

REPLACE = f"""
UPDATE messages m
SET args = $4::jsonb, headers = $5::jsonb, request_id = $6, priority = $7, follow = ($8::jsonb) -> 'follow',
    due_at = coalesce(pushed.due_at, m.due_at), ring_at = coalesce(pushed.due_at, m.ring_at)
FROM (
    SELECT o.id, least(
        clock_timestamp() + make_interval(secs => $9::float8), o.created_at + make_interval(secs => $10::float8)
    ) AS due_at
    FROM ({STANDING}) AS o
    WHERE o.state || '' = 'queued'
) AS pushed
WHERE m.id = pushed.id AND m.key = $3 AND m.state || '' = 'queued'
RETURNING m.id
"""  # noqa: S608 (our own words)

TRIES = 100
"""How often a row may come and go under our hands."""


async def place(connection: AsyncConnection, message: Message) -> UUID:
    """Insert the message, or do with the one that bears its key what it asks for; the id of the one that stands."""
    once = message.once or Once()
    bearer = (message.tenant_id, message.actor, message.key)
    if once.seconds is not None:
        return await _for_a_time(connection, message, once, bearer)
    for _ in range(TRIES):
        if await _all(connection, rows.INSERT_ROWS, rows.columns([rows.row(message)])):
            return message.id
        if once.conflict == "replace":
            found = await _all(connection, REPLACE, (*bearer, *_replacing(message, once)))
        else:
            found = await _all(connection, STANDING, bearer)
        if found and once.conflict == "raise":
            raise Duplicate(message.actor, str(message.key), found[0])
        if found:
            return found[0]
        if await _all(connection, "SELECT id FROM messages WHERE id = $1", (message.id,)):
            return message.id  # this very message is there already
    raise Overloaded(f"{message.actor}: the message that bears key {message.key!r} changes too fast to be replaced")


async def _for_a_time(connection: AsyncConnection, message: Message, once: Once, bearer: tuple[Any, ...]) -> UUID:
    if await _all(connection, TAKE, (*bearer, once.seconds, message.id)):
        await _all(connection, rows.INSERT_ROWS, rows.columns([_without_key(message)]))
        return message.id
    [holder] = await _all(connection, HOLDER, bearer)
    if once.conflict == "raise" and holder != message.id:
        raise Duplicate(message.actor, str(message.key), holder)
    return holder


def _without_key(message: Message) -> tuple[Any, ...]:
    place = [name for name, _ in rows.COLUMNS].index("key")
    row = rows.row(message)
    return (*row[:place], None, *row[place + 1 :])


def _replacing(message: Message, once: Once) -> tuple[Any, ...]:
    row = dict(zip((name for name, _ in rows.COLUMNS), rows.row(message), strict=True))
    names = ("args", "headers", "request_id", "priority", "extra")
    return (*(row[name] for name in names), once.wait, once.max_wait)


async def _all(connection: AsyncConnection, sql: str, values: tuple[Any, ...]) -> list[UUID]:
    found: sa.CursorResult[Any] = await connection.exec_driver_sql(sql, values)
    return list(found.scalars())
