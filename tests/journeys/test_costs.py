"""What one mail costs the servers, from the request to the receiver: counts, which must not grow, and never times."""

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import redis

from tests.conftest import Mailbox
from tests.journeys.house import house

MAILS, AT_ONCE = 300, 40

# Measured: 3.8 commits (claim, load, fence, settle, and a share of the request's), 7.2 kB of WAL, 3.0 round trips and
# 1.6 kB to Redis. The room above that is for a busy machine, which batches less.
COMMITS, WAL_BYTES, REDIS_READS, REDIS_BYTES = 8, 12_000, 8, 4_000


async def test_a_mail_costs_the_servers_no_more_than_this(
    tmp_path: Path, database: str, redis_url: str, mailbox: Mailbox
) -> None:
    where = {"SMTP_HOST": mailbox.host, "SMTP_PORT": str(mailbox.port)}
    async with house(tmp_path, database, redis_url, **where) as running:
        await running.start_api()
        await running.start_worker()
        headers = {"Authorization": f"Bearer {await running.key()}"}
        async with httpx.AsyncClient(base_url=running.url, headers=headers, timeout=60) as client:
            await send(client, 20)  # caches, connections, prepared statements
            await mailbox.wait(20, 60)
            before = await counters(database, redis_url)
            await send(client, MAILS)
            await mailbox.wait(20 + MAILS, 60)
            after = await counters(database, redis_url)
    each = {name: (after[name] - before[name]) / MAILS for name in before}
    assert each["commits"] < COMMITS, each
    assert each["wal"] < WAL_BYTES, each
    assert each["reads"] < REDIS_READS, each
    assert each["bytes"] < REDIS_BYTES, each


async def send(client: httpx.AsyncClient, mails: int) -> None:
    """Posts so many different mails, some at a time."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        body = {"to": f"p{number}@example.org", "subject": "Hello", "text": "What a mail says, more or less. " * 20}
        async with room:
            answer = await client.post("/v1/emails", json=body, headers={"Idempotency-Key": f"{mails}-{number}"})
        assert answer.status_code == 202, answer.text

    await asyncio.gather(*(one(number) for number in range(mails)))


async def counters(database: str, redis_url: str) -> dict[str, Any]:
    """What the servers counted so far: transactions and bytes of WAL, reads (round trips) and bytes of Redis."""
    connection = await asyncpg.connect(database)
    try:
        await asyncio.sleep(1.2)  # backends report their counts once a second
        wal = await connection.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
        statistics = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
        commits = await connection.fetchval(statistics)
    finally:
        await connection.close()
    with redis.Redis.from_url(redis_url) as client:
        seen: dict[str, Any] = client.info("stats")
    return {
        "commits": commits,
        "wal": int(wal),
        "reads": seen["total_reads_processed"],
        "bytes": seen["total_net_input_bytes"],
    }
