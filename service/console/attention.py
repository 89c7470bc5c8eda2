"""What every page shows besides its own: findings of the operational checks, and the counts in the navigation."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.console.reasons import BOUNCE
from service.health.checks import DEAD

FRESH_SECONDS = 3.0
MAX_TENANTS = 1_000  # whose counts a process remembers
REDIS_SECONDS = 0.5
MOST = 999  # messages of a kind that are counted

COUNTS = text(f"""
SELECT
    (SELECT count(*) FROM (SELECT FROM messages m WHERE m.state IN ('dead', 'uncertain', 'held')
        AND m.tenant_id = :tenant_id AND NOT {BOUNCE} LIMIT :most) AS letters) AS dead,
    (SELECT count(*) FROM webhook_endpoints
        WHERE tenant_id = :tenant_id AND enabled AND failing_since IS NOT NULL) AS failing
""")  # noqa: S608 (our own SQL)
BROADCASTS = text("""
SELECT count(*) FROM (
    SELECT FROM bulks WHERE tenant_id = :tenant_id AND ended_at IS NULL AND status = 'running' LIMIT :most
) AS running
""")


class Count(msgspec.Struct, frozen=True):
    """A number beside a section: its tone, and what it counts, for who cannot see where it stands."""

    number: int
    tone: str
    words: str


class Attention(msgspec.Struct, frozen=True):
    """The findings of the checks, errors first, and a count for each section that has one."""

    findings: Sequence[Any] = ()
    counts: Mapping[str, Count] = {}


class Counter:
    """Counts for the navigation, at most once in a few seconds for each tenant."""

    def __init__(self, engine: AsyncEngine, redis: Redis, prefix: str) -> None:
        self._engine, self._redis, self._prefix = engine, redis, prefix
        self._known: OrderedDict[UUID, tuple[float, dict[str, Count]]] = OrderedDict()

    async def counts(self, tenant_id: UUID) -> Mapping[str, Count]:
        """Return the counts of a tenant by the path of the section. Raises what Postgres does."""
        known = self._known.get(tenant_id)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        async with self._engine.connect() as connection:
            found = await _count(connection, tenant_id, await self._buried())
        self._known[tenant_id] = time.monotonic() + FRESH_SECONDS, found
        self._known.move_to_end(tenant_id)
        while len(self._known) > MAX_TENANTS:
            self._known.popitem(last=False)
        return found

    async def _buried(self) -> int:
        """Count the failed tasks that only Redis keeps; none where it does not respond, which the findings report."""
        try:
            async with asyncio.timeout(REDIS_SECONDS):
                waiting: Any = self._redis.llen(f"{self._prefix}{DEAD}")
                return int(await waiting)
        except (RedisError, OSError):  # a timeout is an OSError
            return 0


async def _count(connection: AsyncConnection, tenant_id: UUID, buried: int) -> dict[str, Count]:
    values = {"tenant_id": tenant_id, "most": MOST + 1}
    row = (await connection.execute(COUNTS, values)).one()
    running = (await connection.execute(BROADCASTS, values)).scalar_one()
    found = {
        "/console/dead-letters": Count(row.dead + buried, "bad", "need attention"),
        "/console/webhooks": Count(row.failing, "bad", "failing"),
        "/console/bulk": Count(running, "busy", "not finished"),
    }
    return {path: count for path, count in found.items() if count.number}


async def attention(state: Any, tenant_id: UUID) -> Attention:
    """Gather what the frame of a page shows."""
    prefix = state.settings.redis_key_prefix
    counter: Counter = state.runtime.state.setdefault("console.counter", Counter(state.engine, state.redis, prefix))
    checks = state.get("checks")
    findings = [] if checks is None else await checks.findings()
    return Attention(findings, await counter.counts(tenant_id))
