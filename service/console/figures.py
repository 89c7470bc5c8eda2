"""What the overview shows: mails by the minute, what waits for a person, workers, and how the servers fare."""

import asyncio
import time
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from callboard_workers.ledger.pruning import first_id
from service.console.reasons import BOUNCE
from service.health.checks import Check, Report, probe
from service.health.heartbeats import Process, list_workers
from service.settings import Settings

MINUTES = 60
SLOW = 15.0  # seconds between two looks at the mail server
PATIENCE = 2.0  # seconds

MAILS = text("""
SELECT extract(epoch FROM date_trunc('minute', created_at))::bigint / 60 AS minute, count(*) AS mails,
    count(*) FILTER (WHERE status IN ('failed', 'uncertain', 'bounced', 'complained', 'expired')) AS failed
FROM (SELECT created_at, status FROM emails WHERE tenant_id = :tenant_id AND id >= :since LIMIT :most) AS recent
GROUP BY 1
""")
MOST = 200_000  # mails of the hour that are counted

STATES = ("dead", "uncertain", "held")
HELD = text(f"""
SELECT s.state, (SELECT count(*) FROM (
    SELECT FROM messages m WHERE m.state IN ('dead', 'uncertain', 'held') AND m.state = s.state
        AND m.tenant_id = :tenant_id AND NOT {BOUNCE} LIMIT :most
) AS letters) AS held FROM unnest(CAST(:states AS text[])) AS s(state)
""")  # noqa: S608 (our own SQL)
MOST_HELD = 10_000  # messages of each state that are counted

BUSY = text("""
SELECT worker, count(*) AS running, count(*) FILTER (WHERE lease_until < clock_timestamp()) AS lapsed,
    min(started_at) AS since
FROM messages WHERE state = 'running' AND worker IS NOT NULL GROUP BY worker
""")


class Curve(msgspec.Struct, frozen=True):
    """Counts of the last hour, one for each minute, and their sum."""

    values: list[int]

    @property
    def total(self) -> int:
        """All of the hour."""
        return sum(self.values)

    @property
    def rate(self) -> float:
        """Per minute over the last five."""
        return round(sum(self.values[-5:]) / 5, 1)


class Worker(msgspec.Struct, frozen=True):
    """A worker process: its node name, its process id, what it has in hand, and whether it reported lately."""

    name: str
    process: str
    running: int
    silent: float
    """Seconds since it last reported."""
    alive: bool
    since: datetime | None = None

    @property
    def status(self) -> str:
        """`ready` or `stalled`."""
        return "ready" if self.alive else "stalled"


async def curves(connection: AsyncConnection, tenant_id: UUID) -> tuple[Curve, Curve]:
    """Count the mails of the last hour by the minute: all that were accepted, and those that went wrong."""
    now = time.time()
    values = {"tenant_id": tenant_id, "since": first_id(now - MINUTES * 60), "most": MOST}
    found = {row.minute: row for row in await connection.execute(MAILS, values)}
    minutes = range(int(now // 60) - MINUTES + 1, int(now // 60) + 1)
    rows = [found.get(minute) for minute in minutes]
    return Curve([row.mails if row else 0 for row in rows]), Curve([row.failed if row else 0 for row in rows])


async def held(connection: AsyncConnection, tenant_id: UUID) -> dict[str, int]:
    """Count what needs attention: dead but for hard bounces, uncertain, held; one above MOST_HELD stands for more."""
    values = {"tenant_id": tenant_id, "states": list(STATES), "most": MOST_HELD + 1}
    return {row.state: row.held for row in await connection.execute(HELD, values)}


async def workers(connection: AsyncConnection, redis: Redis, prefix: str) -> list[Worker] | None:
    """List the workers that said lately that they live, and what they have in hand; None where Redis is away."""
    busy = {_process(row.worker): row for row in await connection.execute(BUSY)}
    try:
        found = await list_workers(redis, prefix)
    except (RedisError, OSError):
        return None
    return [_worker(process, busy.get(process.pid)) for process in found]


def _worker(process: Process, row: Any) -> Worker:
    running, since = (row.running, row.since) if row else (0, None)
    return Worker(process.node, process.pid, running, process.silent, process.alive, since)


def _process(worker: str) -> str:
    """The process id in `host:pid:random`."""
    parts = worker.split(":")
    return parts[1] if len(parts) > 2 else worker


class Servers:
    """Looks whether the servers answer; at the mail server only now and then."""

    def __init__(self) -> None:
        self._mail: tuple[float, Check] = (0.0, Check(True, 0.0))

    async def look(self, state: Any) -> Report:
        """Check Postgres, its schema, Redis and the mail server, with the findings of all checks."""
        report, mail = await asyncio.gather(state.checks.report(), self._mail_server(state.settings))
        return Report({**report.checks, "mail server": mail}, report.findings)

    async def _mail_server(self, settings: Settings) -> Check:
        at, known = self._mail
        if time.monotonic() - at > SLOW or not at:
            known = await probe(lambda: _greeting(settings))
            self._mail = time.monotonic(), known
        return known


async def _greeting(settings: Settings) -> str:
    """Hear the banner of the mail server (with TLS from the first byte: only that somebody listens)."""
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(settings.smtp_host, settings.smtp_port)
        try:
            if settings.smtp_tls == "tls":
                return ""
            banner = (await reader.readline()).decode("utf-8", "replace").strip()
            writer.write(b"QUIT\r\n")
            return "" if banner.startswith("220") else f"it says {banner[:80]!r}"
        finally:
            writer.close()
