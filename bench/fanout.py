"""`fanout`: one notification to 100,000 followers, beside a bare INSERT … SELECT of the same rows."""

from __future__ import annotations

import asyncio
import time
from uuid import UUID

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from bench.options import Options
from bench.progress import say
from bench.report import Column, Figures, Report, Target
from bench.servers import Servers
from callboard_workers.testing import workbench
from service.db import engine as db
from service.emails.resources import Office
from service.notifications import fanout
from service.notifications.email import Told, letter
from service.notifications.fanout_sql import CHUNK, Letter
from service.settings import Settings

FOLLOWERS, QUICK_FOLLOWERS = 100_000, 20_000
TENANT = UUID(int=1)

FILL = (
    """
    INSERT INTO users (tenant_id, mode, id, email, address)
    SELECT $1, 'live', 'user-' || n, 'user-' || n || '@example.com', 'user-' || n || '@example.com'
    FROM generate_series(1, $2::int) AS n
    """,
    "INSERT INTO followers (tenant_id, mode, topic, user_no) SELECT $1, 'live', 'all', no FROM users WHERE no <= $2",
    "INSERT INTO followers (tenant_id, mode, topic, user_no)"
    " SELECT $1, 'live', 'half', no FROM users WHERE no % 2 = 0 AND no <= $2",
    "INSERT INTO preferences (user_no, category, channel, tenant_id, pace)"
    " SELECT no, 'news', 'inbox', $1, 'immediate' FROM users WHERE no % 10 = 0 AND no <= $2",
)
NOTIFY = """
INSERT INTO notifications (id, tenant_id, mode, type, category, channels, topics, dedup_key, dedup_window)
VALUES ($1, $2, 'live', 'bench.told', 'news', $3, $4, $5, $6)
"""
BARE = """
INSERT INTO deliveries (notification_id, user_no, channel, tenant_id)
SELECT $1, user_no, 'inbox', tenant_id FROM followers WHERE tenant_id = $2 AND mode = 'live' AND topic = 'all'
"""
DISTINCT = """
INSERT INTO deliveries (notification_id, user_no, channel, tenant_id)
SELECT DISTINCT $1::uuid, user_no, 'inbox', tenant_id FROM followers
WHERE tenant_id = $2 AND mode = 'live' AND topic = 'all' ON CONFLICT DO NOTHING
"""
ENDED = text("UPDATE notifications SET updated_at = clock_timestamp() WHERE id = :id")
"""As the message's end: a commit that waits for the disk."""
FLOOR = "bare INSERT … SELECT"
OURS = "callboard, inbox"
COLUMNS = (Column("rate", "deliveries/s"), Column("seconds", "s", ",.2f"), Column("longest", "longest lock ms"))


class Case:
    """A contestant: what the notification asks for."""

    def __init__(self, channels: list[str], topics: list[str], key: str | None = None) -> None:
        self.channels, self.topics, self.key = channels, topics, key


CASES: dict[str, Case | str] = {
    FLOOR: BARE,
    "the same, deduplicated: DISTINCT … ON CONFLICT": DISTINCT,
    OURS: Case(["inbox"], ["all"]),
    "callboard, two topics and a key": Case(["inbox"], ["all", "half"], "told"),
    "callboard, inbox and mail": Case(["inbox", "email"], ["all"]),
}


def run(options: Options, servers: Servers) -> list[Report]:
    """Each in turn, every round."""
    size = QUICK_FOLLOWERS if options.quick else FOLLOWERS
    title = f"One notification to {size:,} followers, in chunks of {CHUNK:,} (PostgreSQL with fsync)"
    report = Report("fanout", title, COLUMNS, FLOOR, "rate")
    with servers.database() as url:
        say(f"fanout: writing {size:,} followers")
        asyncio.run(fill(url, size))
        for number in range(options.rounds):
            for name, case in CASES.items():
                say(f"fanout, round {number + 1}/{options.rounds}: {name}")
                report.add(name, asyncio.run(measure(url, size, case)))
    report.targets = [Target(OURS, "rate", (FLOOR,), least=1 / 1.5, text="a fan-out")]
    return [report]


async def fill(url: str, size: int) -> None:
    """Write the audience: everybody follows `all`, every second `half`, every tenth has a preference."""
    connection = await asyncpg.connect(url)
    for statement in FILL:
        await connection.execute(statement, TENANT, size, timeout=300)
    await connection.execute("VACUUM ANALYZE", timeout=300)
    await connection.close()


async def measure(url: str, size: int, case: Case | str) -> Figures:
    """Deliver one notification into empty tables."""
    connection = await asyncpg.connect(url)
    await connection.execute("TRUNCATE deliveries, notification_keys, emails, messages CASCADE", timeout=300)
    await connection.execute("CHECKPOINT", timeout=300)
    id = uuid7()
    if isinstance(case, str):
        began = time.perf_counter()
        await connection.execute(case, id, TENANT, timeout=300)
        longest = took = time.perf_counter() - began
    else:
        await connection.execute(NOTIFY, id, TENANT, case.channels, case.topics, case.key, 3600.0 if case.key else None)
        engine = db.create_engine(Settings.from_env({"DATABASE_URL": url}))
        took, longest = await _deliver(engine, id, mails="email" in case.channels)
        await engine.dispose()
    count: int = await connection.fetchval("SELECT count(*) FROM deliveries WHERE channel = 'inbox'")
    await connection.close()
    assert count == size, f"{count} of {size} were delivered"
    return {"rate": size / took, "seconds": took, "longest": longest * 1e3}


async def _deliver(engine: AsyncEngine, id: UUID, *, mails: bool) -> tuple[float, float]:
    mail = await _letter(engine, id) if mails else None
    began = before = time.perf_counter()
    longest = 0.0
    await fanout.begin(engine, id)
    while (served := await fanout.serve(engine, id, mail)) is not None:
        now = time.perf_counter()
        longest, before = max(longest, now - before), now
        if served.over:
            break
    async with engine.begin() as connection:
        await connection.execute(ENDED, {"id": id})
    return time.perf_counter() - began, longest


async def _letter(engine: AsyncEngine, id: UUID) -> Letter:
    told = Told(
        id=id,
        tenant_id=TENANT,
        mode="live",
        type="bench.told",
        category="news",
        critical=False,
        data={"title": "Something happened", "body": "And this is what it was."},
        wide=True,
        email=None,
        request_id=None,
    )
    async with workbench(engine) as bench:
        bench.runtime.state["settings"] = Settings.from_env({})
        office = Office.of(bench.runtime)
        return await letter(told, office.desk(TENANT), office.house.host)
