"""What Postgres keeps of bulks: one record each, their recipients, and the messages of those that wait."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.broadcasts.models import Bulk, Common, gate_name
from service.db.bulk_insert import Table

NAMES = ", ".join(Bulk.__struct_fields__).replace("request,", "request::text AS request,")

INSERT = text("""
INSERT INTO bulks (id, tenant_id, mode, status, name, request_id, request, pace, period, scheduled_at, created_at)
VALUES (:id, :tenant_id, :mode, :status, :name, :request_id, CAST(:request AS jsonb), :pace, :period, :scheduled_at,
    :created_at)
""")
READ = f"SELECT {NAMES} FROM bulks WHERE id = :id AND (CAST(:tenant_id AS uuid) IS NULL OR tenant_id = :tenant_id)"  # noqa: S608
FIND = text(READ)
LOCK = text(f"{READ} FOR UPDATE")
PAGE = text(f"""
SELECT {NAMES} FROM bulks WHERE tenant_id = :tenant_id AND (CAST(:before AS uuid) IS NULL OR id < :before)
ORDER BY id DESC LIMIT :limit
""")  # noqa: S608 (our own columns)
COUNT = text("SELECT bulk_id, status, count(*) FROM emails WHERE bulk_id = ANY(:ids) GROUP BY bulk_id, status")
MESSAGES = text("SELECT id, state, attempts, error FROM messages WHERE id = ANY(:ids)")

RECIPIENTS = Table(
    "bulk_recipients",
    (
        ("seq", "integer"),
        ("bulk_id", "uuid"),
        ("tenant_id", "uuid"),
        ("address", "text"),
        ("to_", "text"),
        ("locale", "text"),
        ("variables", "jsonb"),
    ),
)
ADD = f"""
WITH new AS (
    INSERT INTO bulk_recipients ({", ".join(name for name, _ in RECIPIENTS.columns)}) {RECIPIENTS.select(1)}
    ON CONFLICT DO NOTHING RETURNING 1
)
SELECT count(*) FROM new
"""  # noqa: S608 (our own columns)
CHUNK = text("""
SELECT seq, to_, locale, variables FROM bulk_recipients
WHERE bulk_id = :id AND seq > :after ORDER BY seq LIMIT :limit
""")
WAITING = """
SELECT id FROM messages WHERE gate = :gate AND NOT admitted AND state = 'queued'
UNION ALL SELECT id FROM messages WHERE gate = :gate AND admitted AND state IN ('queued', 'running')
UNION ALL SELECT CAST(:id AS uuid)
"""
IN_DOUBT = """
SELECT id FROM messages WHERE gate = :gate AND state = 'uncertain' AND uncertain_policy = 'resend'
"""
# Rows are locked in the order of their ids, as everywhere else. The ids are an array, computed once: Postgres evaluates
# a subquery of the locking statement again for every row that a worker has changed meanwhile, which takes minutes.
LOCKED = f"SELECT m.id FROM messages m WHERE m.id = ANY (ARRAY({WAITING})) ORDER BY m.id FOR NO KEY UPDATE"  # noqa: S608
LEFT = LOCKED.replace(WAITING, f"{WAITING} UNION ALL {IN_DOUBT}")
PARK = text(f"""
WITH mine AS ({LOCKED})
UPDATE messages m SET due_at = clock_timestamp() + interval '390 days', ring_at = 'infinity', admitted = false
FROM mine WHERE m.id = mine.id AND m.state = 'queued'
""")  # noqa: S608 (our own SQL)
UNPARK = text(f"""
WITH mine AS ({LOCKED})
UPDATE messages m SET due_at = greatest(clock_timestamp(), b.scheduled_at), rings = 0,
    ring_at = CASE WHEN m.gate IS NULL THEN greatest(clock_timestamp(), b.scheduled_at) ELSE 'infinity' END
FROM mine, bulks b
WHERE m.id = mine.id AND b.id = :id AND m.state = 'queued' AND m.due_at > clock_timestamp()
""")  # noqa: S608 (our own SQL)
# What is past its point of no return may still come to its end; in doubt or refused for now, it is not sent again.
CANCEL = text(f"""
WITH mine AS ({LEFT})
UPDATE messages m
SET state = CASE WHEN m.state = 'queued' THEN 'canceled' ELSE m.state END, cancel_requested = true,
    uncertain_policy = 'hold',
    finished_at = CASE WHEN m.state = 'queued' THEN clock_timestamp() ELSE m.finished_at END
FROM mine WHERE m.id = mine.id AND m.state IN ('queued', 'running', 'uncertain')
""")  # noqa: S608 (our own SQL)
BACKLOG = text("""
SELECT count(*) FROM (
    SELECT 1 FROM messages WHERE gate = :gate AND NOT admitted AND state = 'queued'
    UNION ALL SELECT 1 FROM messages WHERE gate = :gate AND admitted AND state IN ('queued', 'running')
) AS waiting
""")
# One at a time: its mails, of which there may be a million, are counted in the same statement.
END = text("""
UPDATE bulks SET ended_at = clock_timestamp() WHERE id = ANY (ARRAY(
    SELECT id FROM bulks b WHERE ended_at IS NULL AND status = 'running' AND total = expanded
        AND (scheduled_at IS NULL OR scheduled_at <= clock_timestamp())
        AND NOT EXISTS (SELECT FROM messages m WHERE m.gate = 'bulk:' || b.id AND NOT m.admitted AND m.state = 'queued')
        AND NOT EXISTS (
            SELECT FROM messages m WHERE m.gate = 'bulk:' || b.id AND m.admitted AND m.state IN ('queued', 'running'))
    ORDER BY id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED))
RETURNING id
""")
PACE = text(f"""
WITH mine AS ({LOCKED})
UPDATE messages m SET pace = :pace, period = :period
FROM mine WHERE m.id = mine.id AND m.state = 'queued' AND m.gate IS NOT NULL
""")  # noqa: S608 (our own SQL)
SENT_LATER = text("""
SELECT e.id, r.seq, r.to_, r.locale, r.variables FROM emails e
JOIN bulk_recipients r ON r.bulk_id = e.bulk_id AND r.to_ = e.to_[1]
WHERE e.bulk_id = :id AND e.status = 'queued'
""")
CORRECT = """
UPDATE emails e SET template_version = c.version, template_locale = c.locale, template_variables = c.variables::jsonb,
    updated_at = clock_timestamp()
FROM unnest($1::uuid[], $2::integer[], $3::text[], $4::text[]) AS c(id, version, locale, variables)
WHERE e.id = c.id AND e.status = 'queued'
"""


async def insert(connection: AsyncConnection, bulk: Bulk) -> None:
    """Store a new bulk."""
    values = {name: getattr(bulk, name) for name in bulk.__struct_fields__}
    await connection.execute(INSERT, {**values, "request": msgspec.json.encode(bulk.request).decode()})


async def find(connection: AsyncConnection, id: UUID, tenant_id: UUID | None, *, lock: bool = False) -> Bulk | None:
    """Read a bulk; with `lock` nobody else changes or expands it until this transaction is over."""
    found = await connection.execute(LOCK if lock else FIND, {"id": id, "tenant_id": tenant_id})
    row = found.mappings().one_or_none()
    return None if row is None else _bulk(row)


async def page(connection: AsyncConnection, tenant_id: UUID, before: UUID | None, limit: int) -> list[Bulk]:
    """Return up to `limit` bulks with ids below `before`, newest first."""
    found = await connection.execute(PAGE, {"tenant_id": tenant_id, "before": before, "limit": limit})
    return list(map(_bulk, found.mappings()))


async def update(connection: AsyncConnection, id: UUID, **values: Any) -> None:
    """Change columns of a bulk; `more_…` is added to what is there."""
    changes = [
        f"{name[5:]} = {name[5:]} + :{name}" if name.startswith("more_") else f"{name} = :{name}" for name in values
    ]
    sql = f"UPDATE bulks SET {', '.join(changes)}, updated_at = clock_timestamp() WHERE id = :id"  # noqa: S608
    sql = sql.replace(":request", "CAST(:request AS jsonb)")
    await connection.execute(text(sql), {"id": id, **values})


async def add(connection: AsyncConnection, recipients: Sequence[tuple[Any, ...]]) -> int:
    """Add recipients; how many are new."""
    if not recipients:
        return 0
    found = await connection.exec_driver_sql(ADD, tuple(RECIPIENTS.arrays(recipients)))
    count: int = found.scalar_one()
    return count


async def chunk(connection: AsyncConnection, id: UUID, after: int, limit: int) -> Sequence[RowMapping]:
    """Return the next recipients."""
    return (await connection.execute(CHUNK, {"id": id, "after": after, "limit": limit})).mappings().all()


async def park(connection: AsyncConnection, id: UUID) -> None:
    """Put off all that waits, until somebody resumes."""
    await connection.execute(PARK, {"id": id, "gate": gate_name(id)})


async def unpark(connection: AsyncConnection, id: UUID) -> None:
    """Make due what was put off."""
    await connection.execute(UNPARK, {"id": id, "gate": gate_name(id)})


async def throttle(connection: AsyncConnection, id: UUID, pace: int | None, period: float | None) -> None:
    """Let the mails that wait start at another pace."""
    await connection.execute(PACE, {"id": id, "gate": gate_name(id), "pace": pace, "period": period})


async def waiting(connection: AsyncConnection, id: UUID) -> Sequence[RowMapping]:
    """The mails that are written and wait, with their recipients: no more than a window of them."""
    return (await connection.execute(SENT_LATER, {"id": id})).mappings().all()


async def correct(connection: AsyncConnection, mails: Sequence[tuple[UUID, int | None, str | None, Any]]) -> None:
    """Write the template of waiting mails anew: (id, version, locale, variables) of each."""
    ids, versions, locales, variables = (list(each) for each in zip(*mails, strict=True)) if mails else ([],) * 4
    encoded = [msgspec.json.encode(each).decode() for each in variables]
    await connection.exec_driver_sql(CORRECT, (ids, versions, locales, encoded))


async def cancel(connection: AsyncConnection, id: UUID) -> None:
    """Cancel all that waits; what is under way is told to stop before it cannot, and nothing is sent again."""
    await connection.execute(CANCEL, {"id": id, "gate": gate_name(id)})


async def backlog(connection: AsyncConnection, id: UUID) -> int:
    """How many mails are written and not ended, through two partial indexes."""
    count: int = (await connection.execute(BACKLOG, {"gate": gate_name(id)})).scalar_one()
    return count


async def ended(connection: AsyncConnection) -> UUID | None:
    """Note of a bulk of which nothing waits any more that it has ended; which it is, each once, None after the last."""
    return (await connection.execute(END)).scalar_one_or_none()


async def counts(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, dict[str, int]]:
    """Mails by status, of each bulk: one scan of an index."""
    found: dict[UUID, dict[str, int]] = {id: {} for id in ids}
    for id, status, count in await connection.execute(COUNT, {"ids": list(ids)}):
        found[id][status] = count
    return found


async def messages(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, RowMapping]:
    """The messages that turn recipients into mails."""
    found = await connection.execute(MESSAGES, {"ids": list(ids)})
    return {row["id"]: row for row in found.mappings()}


def _bulk(row: RowMapping) -> Bulk:
    values: dict[str, Any] = {str(name): value for name, value in row.items()}
    return Bulk(**{**values, "request": msgspec.json.decode(values["request"], type=Common)})
