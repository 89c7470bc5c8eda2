"""Reads and marks a feed: what the inbox of a user holds, in the order of its numbers.

Numbers are given when somebody looks (`feed_number`), under a lock of the user's row: whoever has seen a number will
never find a smaller one that is new. So a number is a place to go on from.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec
from sqlalchemy import RowMapping, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as PgUUID
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from service.core.ids import notification_id

Mark = Literal["read", "seen", "archive"]
Show = Literal["all", "unread", "archived"]

SHOWN = {
    "all": "d.archived_at IS NULL",
    "unread": "d.archived_at IS NULL AND d.read_at IS NULL",
    "archived": "d.archived_at IS NOT NULL",
}
_ITEM = """
SELECT d.seq, d.notification_id, n.type, n.category, n.actor, n.data, n.critical, d.created_at,
    d.seen_at, d.read_at, d.archived_at
FROM deliveries d JOIN notifications n ON n.id = d.notification_id
WHERE d.user_no = :no AND d.channel = 'inbox' AND
"""
_PAGES = {
    show: text(f"{_ITEM} d.seq < :before AND {where} ORDER BY d.seq DESC LIMIT :limit") for show, where in SHOWN.items()
}
_AFTER = text(f"{_ITEM} d.seq > :seq ORDER BY d.seq LIMIT :limit")
_NUMBER = text("SELECT feed_number(:no) AS last_seq")
_COUNTS = text("""
SELECT count(*) FILTER (WHERE read_at IS NULL) AS unread, count(*) FILTER (WHERE seen_at IS NULL) AS unseen
FROM deliveries WHERE user_no = :no AND channel = 'inbox' AND archived_at IS NULL
""")
_SETS = {
    "seen": "seen_at = coalesce(seen_at, clock_timestamp())",
    "read": "seen_at = coalesce(seen_at, clock_timestamp()), read_at = coalesce(read_at, clock_timestamp())",
    "archive": "seen_at = coalesce(seen_at, clock_timestamp()), archived_at = coalesce(archived_at, clock_timestamp())",
}
_UNSET = {"seen": "seen_at = NULL, read_at = NULL", "read": "read_at = NULL", "archive": "archived_at = NULL"}
_MARKED = {"seen": "seen_at", "read": "read_at", "archive": "archived_at"}

LAST = (1 << 63) - 1


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One notification in somebody's feed. `seq` grows; it is also the id of the live event."""

    id: str
    seq: int
    type: str
    category: str | None
    actor: str | None
    data: dict[str, Any]
    critical: bool
    created_at: datetime
    seen_at: datetime | None
    read_at: datetime | None
    archived_at: datetime | None


class FeedCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many items that are not archived were not read, and not even seen."""

    unread: int
    unseen: int


class Slice(msgspec.Struct, frozen=True):
    """What came after a number, oldest first, and the newest number there is."""

    items: list[Item]
    last_seq: int


async def after(engine: AsyncEngine, no: int, seq: int, limit: int) -> Slice | None:
    """Number what is new and read what comes after `seq`, oldest first; None where the user is gone."""
    async with engine.begin() as connection:
        last_seq = await number(connection, no)
        if last_seq is None:
            return None
        if last_seq <= seq:
            return Slice([], last_seq)
        rows = await connection.execute(_AFTER, {"no": no, "seq": seq, "limit": limit})
        return Slice([_item(row) for row in rows.mappings()], last_seq)


async def number(connection: AsyncConnection | AsyncSession, no: int) -> int | None:
    """Number what is new, in the caller's transaction; the newest number, None where the user is gone."""
    found: int | None = (await connection.execute(_NUMBER, {"no": no})).scalar_one()
    return found


async def page(connection: AsyncConnection, no: int, show: Show, before: int, limit: int) -> list[Item]:
    """Read a page, newest first."""
    rows = await connection.execute(_PAGES[show], {"no": no, "before": before, "limit": limit})
    return [_item(row) for row in rows.mappings()]


async def counts(connection: AsyncConnection | AsyncSession, no: int) -> FeedCounts:
    """Count what is unread and unseen."""
    row = (await connection.execute(_COUNTS, {"no": no})).one()
    return FeedCounts(unread=row.unread, unseen=row.unseen)


async def mark(
    session: AsyncSession, no: int, what: Mark, *, ids: Sequence[UUID] | None, up_to: int, undo: bool = False
) -> int:
    """Mark items by id, or all up to a number; how many changed. What is read or archived was seen."""
    changes = _UNSET[what] if undo else _SETS[what]
    where = f"{_MARKED[what]} IS {'NOT ' if undo else ''}NULL"
    chosen = "seq <= :up_to" if ids is None else "notification_id = ANY(:ids)"
    sql = f"UPDATE deliveries SET {changes} WHERE user_no = :no AND channel = 'inbox' AND {where} AND {chosen}"  # noqa: S608
    if ids is None:
        return _count(await session.execute(text(sql), {"no": no, "up_to": up_to}))
    statement = text(sql).bindparams(bindparam("ids", type_=ARRAY(PgUUID)))
    return _count(await session.execute(statement, {"no": no, "ids": list(ids)}))


def _count(result: Any) -> int:
    return int(result.rowcount)


def _item(row: RowMapping) -> Item:
    same = ("seq", "type", "category", "actor", "data", "critical", "created_at", "seen_at", "read_at", "archived_at")
    return Item(id=notification_id(row["notification_id"]), **{name: row[name] for name in same})
