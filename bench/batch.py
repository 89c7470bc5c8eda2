"""`batch`: mails accepted one by one and a thousand in a call, by one process; and what a bulk's counts cost."""

from __future__ import annotations

import asyncio
import time
from uuid import UUID

import asyncpg
import httpx
import msgspec
from sqlalchemy.ext.asyncio import create_async_engine

from bench import load, running
from bench.accept import OURS, PATH, new_key, serving
from bench.options import Options
from bench.progress import say
from bench.report import Column, Figures, Report, Target
from bench.servers import Servers
from service.broadcasts import repository
from service.settings import Settings

BATCH = "callboard, 1,000 in a call"
MAILS = 1_000
CALLERS = 3
BULK = UUID(int=7)
FEW, MANY = 1_000, 100_000
FILL = """
INSERT INTO emails (id, tenant_id, mode, status, message_id, sender, to_, recipients, template_key, template_variables,
    bulk_id)
SELECT uuidv7(), $1, 'live', (ARRAY['queued', 'sending', 'sent', 'failed'])[1 + n % 4], '<' || n || '@example.org>',
    'a@example.org', ARRAY['u' || n || '@example.org'], ARRAY['u' || n || '@example.org'], 'welcome',
    '{"name": "a reader of no importance"}', $1
FROM generate_series(1, $2::int) AS n
"""


def run(options: Options, servers: Servers) -> list[Report]:
    """Both ways in turn, every round; then the counts."""
    title = "mails accepted, 1 kB each, by one granian process"
    report = Report("batch", title, (Column("rate", "mails/s"),), BATCH, "rate")
    with servers.database() as database:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {asyncio.run(new_key(database))}"}
        for number in range(options.rounds):
            for name in (OURS, BATCH):
                say(f"batch, round {number + 1}/{options.rounds}: {name}")
                try:
                    report.add(name, measure(name, headers, options, servers, database))
                except (running.Broken, load.Refused, RuntimeError, OSError) as error:
                    report.fail(name, str(error))
    report.targets = [Target(BATCH, "rate", (OURS,), least=4, text="mails/s")]
    return [report, counted(options, servers)]


def measure(name: str, headers: dict[str, str], options: Options, servers: Servers, database: str) -> Figures:
    """Warm up, then load for some seconds."""
    servers.clean()
    with serving("", options, servers, database) as (_, port):
        if name == OURS:
            load.measure(port, PATH, headers, load.mail(), 1)
            return {"rate": load.measure(port, PATH, headers, load.mail(), options.seconds * 2)["rate"]}
        return {"rate": asyncio.run(batches(port, headers, options.seconds * 2))}


async def batches(port: int, headers: dict[str, str], seconds: float) -> float:
    """Mails per second of some callers, each with one batch after the other."""
    mails = [msgspec.json.decode(load.mail(f"user{number}@example.org")) for number in range(MAILS)]
    body, until, done = msgspec.json.encode({"emails": mails}), 0.0, 0

    async def call(client: httpx.AsyncClient) -> None:
        nonlocal done
        while time.monotonic() < until:
            answer = await client.post(f"{PATH}/batch", content=body)
            if answer.status_code != 202:
                raise load.Refused(f"{answer.status_code}: {answer.text[:200]}")
            done += MAILS

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as client:
        (await client.post(f"{PATH}/batch", content=body)).raise_for_status()
        begun = time.monotonic()
        until = begun + seconds
        await asyncio.gather(*(call(client) for _ in range(CALLERS)))
        return done / (time.monotonic() - begun)


def counted(options: Options, servers: Servers) -> Report:
    """What `GET /v1/bulk/{id}` asks Postgres, with few and with many mails."""
    report = Report(
        "bulk counts", "the counts of one bulk", (Column("count", "ms", ",.1f"),), f"{FEW:,} mails", "count"
    )
    for size in (FEW, MANY):
        with servers.database() as database:
            say(f"batch: counting {size:,} mails")
            for figure in asyncio.run(counting(database, size, options.rounds * 3)):
                report.add(f"{size:,} mails", {"count": figure})
    return report


async def counting(database: str, size: int, times: int) -> list[float]:
    """Milliseconds of each count."""
    raw = await asyncpg.connect(database)
    await raw.execute(FILL, BULK, size)
    await raw.execute("VACUUM ANALYZE emails")
    await raw.close()
    engine = create_async_engine(
        Settings.from_env({"DATABASE_URL": database}).database_url.replace("://", "+asyncpg://")
    )
    found = []
    async with engine.connect() as connection:
        await repository.counts(connection, [BULK])
        for _ in range(times):
            begun = time.perf_counter()
            await repository.counts(connection, [BULK])
            found.append((time.perf_counter() - begun) * 1e3)
    await engine.dispose()
    return found
