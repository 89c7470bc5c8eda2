"""Goes through the people that a notification reaches, chunk by chunk; each chunk is one transaction.

A chunk locks the notification, begins where its row says that the last one ended, and moves that mark with its own
deliveries. So it does not matter who goes on, or how often: a crash undoes a chunk, and the next attempt does it.
"""

from typing import Any
from uuid import UUID

import msgspec
from asyncpg import UniqueViolationError
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from service.db.engine import cause
from service.notifications import fanout_sql
from service.notifications.fanout_sql import Letter, Target
from service.notifications.models import COUNTS

# ruff: noqa: S608 (names come from the code, values are always parameters)
_TARGET = ", ".join(Target.__struct_fields__)
_LOCK = text(
    f"SELECT {_TARGET}, finished_at IS NOT NULL AS finished FROM notifications WHERE id = :id FOR NO KEY UPDATE"
)
_MOVE = text(
    "UPDATE notifications SET after_no = :last_no, updated_at = clock_timestamp(),"
    " finished_at = CASE WHEN :over THEN clock_timestamp() END, "
    + ", ".join(f"{name} = {name} + :{name}" for name in COUNTS)
    + " WHERE id = :id RETURNING resolved + overlapping"
)
_MAKE = text("""
INSERT INTO users (tenant_id, mode, id)
SELECT n.tenant_id, n.mode, named.id
FROM notifications n CROSS JOIN LATERAL (SELECT DISTINCT unnest(n.users) AS id) AS named
WHERE n.id = :id AND NOT EXISTS (
    SELECT FROM users u WHERE u.tenant_id = n.tenant_id AND u.mode = n.mode AND u.id = named.id)
ORDER BY named.id
ON CONFLICT DO NOTHING
""")
_TOTAL = text("""
SELECT cardinality(n.users)
    + (SELECT count(*) FROM followers f
       WHERE f.tenant_id = n.tenant_id AND f.mode = n.mode AND f.topic = ANY(n.topics))
    + (SELECT count(*) FROM members m
       WHERE m.tenant_id = n.tenant_id AND m.mode = n.mode AND m.organization_id = n.organization_id)
FROM notifications n WHERE n.id = :id
""")


class Served(msgspec.Struct, frozen=True):
    """What a chunk did: whose inbox has something new (`users` are the first of them, `low` to `high` their range).

    `mails` are to be rung for; `done` is how many were served so far, and `over` whether that is all.
    """

    users: list[int]
    low: int | None
    high: int | None
    mails: list[UUID]
    done: int
    over: bool


async def begin(engine: AsyncEngine, id: UUID) -> int:
    """Make the users that are named and not there yet; return at most how many people there are to serve."""
    async with engine.begin() as connection:
        await connection.execute(_MAKE, {"id": id})
        total: int | None = (await connection.execute(_TOTAL, {"id": id})).scalar_one_or_none()
    return total or 0


async def serve(engine: AsyncEngine, id: UUID, letter: Letter | None, size: int = fanout_sql.CHUNK) -> Served | None:
    """Serve the next chunk and move the mark, in one transaction; None where there is nothing left to do."""
    try:
        return await _serve(engine, id, letter, size)
    except IntegrityError as error:
        if not isinstance(cause(error), UniqueViolationError):
            raise
    return await _serve(engine, id, letter, size, again=True)  # somebody has set the mark back


async def _serve(
    engine: AsyncEngine, id: UUID, letter: Letter | None, size: int, *, again: bool = False
) -> Served | None:
    async with engine.begin() as connection:
        await connection.exec_driver_sql(fanout_sql.PLANNING)
        row = (await connection.execute(_LOCK, {"id": id})).one_or_none()
        if row is None or row.finished:
            return None
        target = Target(**{name: row._mapping[name] for name in Target.__struct_fields__})
        sql, values = fanout_sql.statement(target, letter, size, again=again)
        found = dict((await connection.exec_driver_sql(sql, tuple(values))).mappings().one())
        over = found["reached"] < size
        last_no = found["last_no"] or target.after_no
        moved = {"id": id, "last_no": last_no, "over": over, **_counts(found)}
        done: int = (await connection.execute(_MOVE, moved)).scalar_one()
    inbox = found.get("inbox_users", [])
    return Served(inbox, found["first_no"], found["last_no"], found.get("mails", []), done, over)


def _counts(found: dict[str, Any]) -> dict[str, int]:
    counts = {name: int(found.get(name, 0)) for name in COUNTS}
    counts["resolved"] = int(found["reached"])
    counts["deduplicated"] = int(found["reached"]) - int(found["excluded"]) - int(found["due"])
    return counts
