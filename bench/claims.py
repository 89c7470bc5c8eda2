"""`claims`: what a claim, a settle and a sweep cost with few and with many rows pending."""

from __future__ import annotations

import asyncio
import time
from uuid import UUID

import asyncpg

from bench.options import Options
from bench.progress import say
from bench.report import Column, Figures, Report, Target
from bench.servers import Servers
from callboard_workers.ledger import Ledger
from callboard_workers.policy import Done
from service.db import engine as db
from service.settings import Settings

FEW, MANY, QUICK_MANY = 1_000, 1_000_000, 100_000
PICKED = 800
CHUNK = 100_000
FILL = """
INSERT INTO messages (id, actor, queue, priority, args, headers, max_crashes, uncertain_policy, due_at, ring_at, rings)
SELECT uuidv7(), 'bench.noop', 'default', 6, '[[], {}]', '{}', 3, 'hold',
    clock_timestamp() + CASE WHEN n % 2 = 0 THEN interval '0' ELSE interval '1 day' END,
    clock_timestamp() + interval '1 day', 0
FROM generate_series(1, $1::int) AS n
"""
PICK = "SELECT id FROM messages WHERE state = 'queued' AND due_at < clock_timestamp() ORDER BY random() LIMIT $1"
COLUMNS = (
    Column("claim", "claim µs"),
    Column("settle", "settle µs"),
    Column("sweep", "sweep ms", ",.1f"),
)


def run(options: Options, servers: Servers) -> list[Report]:
    """Both sizes in turn, every round."""
    many = QUICK_MANY if options.quick else MANY
    sizes = {f"{FEW:,} rows pending": FEW, f"{many:,} rows pending": many}
    few, lots = sizes
    report = Report("claims", "Claiming and settling, 100 at a time (PostgreSQL with fsync)", COLUMNS, few, "claim")
    with servers.database() as small, servers.database() as large:
        urls = dict(zip(sizes, (small, large), strict=True))
        for name, size in sizes.items():
            say(f"claims: writing {size:,} rows")
            asyncio.run(fill(urls[name], size))
        for number in range(options.rounds * 3):
            for name, size in sizes.items():
                say(f"claims, round {number + 1}/{options.rounds * 3}: {name}")
                report.add(name, asyncio.run(measure(urls[name], size)))
    report.targets = [
        Target(lots, "claim", (few,), most=1.3, text="claims"),
        Target(lots, "settle", (few,), most=1.3, text="settles"),
        Target(lots, "sweep", (few,), most=1.5, text="sweeps"),
    ]
    return [report]


async def fill(url: str, size: int) -> None:
    """Write so many pending rows, half of them due."""
    connection = await asyncpg.connect(url)
    for start in range(0, size, CHUNK):
        await connection.execute(FILL, min(CHUNK, size - start), timeout=300)
    await connection.execute("VACUUM ANALYZE messages", timeout=300)
    await connection.close()


async def measure(url: str, size: int) -> Figures:
    """Claim and settle some rows from anywhere in the table, sweep, and put as many new rows in."""
    engine = db.create_engine(Settings.from_env({"DATABASE_URL": url}))
    ledger = Ledger(engine)
    connection = await asyncpg.connect(url)
    picked: list[UUID] = [row["id"] for row in await connection.fetch(PICK, min(PICKED, size // 3), timeout=300)]
    warm, picked = picked[:100], picked[100:]
    for claim in await asyncio.gather(*(ledger.claim(one, "bench") for one in warm)):
        assert claim is not None
        await ledger.settle(claim, Done())
    began = time.perf_counter()
    claims = [claim for claim in await asyncio.gather(*(ledger.claim(one, "bench") for one in picked)) if claim]
    claimed = time.perf_counter()
    await asyncio.gather(*(ledger.settle(claim, Done()) for claim in claims))
    settled = time.perf_counter()
    for _ in range(10):
        await ledger.sweep(lambda _: None)
    swept = time.perf_counter()
    await connection.execute(FILL, 2 * (len(claims) + len(warm)), timeout=300)
    await connection.close()
    await ledger.close()
    await engine.dispose()
    count = len(claims)
    return {
        "claim": (claimed - began) / count * 1e6,
        "settle": (settled - claimed) / count * 1e6,
        "sweep": (swept - settled) / 10 * 1e3,
    }
