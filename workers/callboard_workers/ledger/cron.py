"""Ticks: each firing of a cron becomes one row, however many schedulers see it come."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING
from uuid import UUID

import structlog

from callboard_workers.cron import Scheduled
from callboard_workers.ledger import rows
from callboard_workers.ledger.database import fetch
from callboard_workers.message import Message

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

log = structlog.stdlib.get_logger("callboard_workers.cron")

LAST = """
SELECT n.name, c.tick, clock_timestamp() + make_interval(secs => $2) AS now
FROM unnest($1::text[]) AS n(name) LEFT JOIN message_crons c ON c.name = n.name
"""

MEET = """
INSERT INTO message_crons (name, tick)
SELECT n.name, clock_timestamp() + make_interval(secs => $2) FROM unnest($1::text[]) AS n(name) ORDER BY n.name
ON CONFLICT (name) DO NOTHING
"""
# A cron that was never seen before fires from its next tick on.

FIRE = f"""
WITH fired AS (
    UPDATE message_crons SET tick = $2 WHERE name = $1 AND tick < $2 RETURNING name
)
{rows.INSERT} {rows.SELECT} {rows.unnest(first=3)} WHERE EXISTS (SELECT FROM fired)
ON CONFLICT DO NOTHING RETURNING id
"""  # noqa: S608 (our own constants)


async def fire(engine: AsyncEngine, scheduled: Mapping[str, Scheduled], *, ahead: float = 0.0) -> list[Message]:
    """Insert the messages of every tick that has come, by Postgres' clock; those that are new, to be rung for.

    `ahead`: seconds that a test takes the clock to be ahead.
    """
    if not scheduled:
        return []
    found = await fetch(engine, LAST, list(scheduled), ahead)
    if unmet := [row["name"] for row in found if row["tick"] is None]:
        await fetch(engine, MEET, unmet, ahead)
    fired: list[Message] = []
    for row in found:
        if row["tick"] is not None:
            fired += await _fire(engine, row["name"], scheduled[row["name"]], row["tick"], row["now"])
    return fired


async def _fire(engine: AsyncEngine, name: str, entry: Scheduled, last: dt.datetime, now: dt.datetime) -> list[Message]:
    ticks = entry.cron.due(last, now)
    if not ticks:
        return []
    messages = [entry.make(tick) for tick in ticks]
    columns = rows.columns([rows.row(message) for message in messages])
    new: set[UUID] = {row["id"] for row in await fetch(engine, FIRE, name, ticks[-1], *columns)}
    if new:
        log.info("cron_fired", task_name=name, ticks=[tick.isoformat() for tick in ticks], late=_late(ticks[-1], now))
    return [message for message in messages if message.id in new]


def _late(tick: dt.datetime, now: dt.datetime) -> float:
    return round((now - tick).total_seconds(), 1)
