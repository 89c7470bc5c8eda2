"""`/health/live`, `/health/ready` and `/metrics`: is the process alive, can it serve, how does it fare."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec
import structlog
from litestar import Response, Router, get
from litestar.datastructures import State
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.web.metrics import LedgerMetrics
from service.web.openapi import examples

log = structlog.get_logger("service.web")

PATIENCE = 2.0  # seconds for one dependency
READY = {
    "status": "degraded",
    "checks": {
        "postgres": {"ok": True, "ms": 1.1, "detail": ""},
        "schema": {"ok": True, "ms": 1.9, "detail": ""},
        "redis": {"ok": False, "ms": 1000.4, "detail": "TimeoutError: Timeout connecting to server"},
    },
}


class Check(msgspec.Struct):
    """One dependency: `ok`, how long it took to answer, and what is wrong with it."""

    ok: bool
    ms: float
    detail: str = ""


class Live(msgspec.Struct):
    """The loop answers."""

    status: Literal["live"] = "live"


class Ready(msgspec.Struct):
    """`ready`: everything is well. `degraded`: accepts work, which waits for Redis. `unready`: cannot accept work."""

    status: Literal["ready", "degraded", "unready"]
    checks: dict[str, Check]


async def probe(check: Callable[[], Awaitable[str]]) -> Check:
    """Run one check, bounded in time; an exception is its detail."""
    started = time.perf_counter()
    try:
        async with asyncio.timeout(PATIENCE):
            wrong = await check()
    except Exception as error:
        wrong = f"{type(error).__name__}: {error}".rstrip(": ").splitlines()[0][:200]
    return Check(not wrong, round((time.perf_counter() - started) * 1000, 1), wrong)


async def examine(engine: AsyncEngine, redis: Redis, head: str) -> Ready:
    """Look at Postgres, its schema and Redis, all at once."""

    async def postgres() -> str:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
        return ""

    async def schema() -> str:
        async with engine.connect() as connection:
            there = (await connection.execute(text("SELECT to_regclass('alembic_version')"))).scalar_one_or_none()
            if there is None:
                return "no tables: run `callboard migrate`"
            found = (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalars().all()
        return "" if head in found else f"at {', '.join(found) or 'nothing'}, not {head}: run `callboard migrate`"

    async def ping() -> str:
        await redis.ping()
        return ""

    names = ("postgres", "schema", "redis")
    found = dict(zip(names, await asyncio.gather(probe(postgres), probe(schema), probe(ping)), strict=True))
    if not (found["postgres"].ok and found["schema"].ok):
        return Ready("unready", found)
    return Ready("ready" if found["redis"].ok else "degraded", found)


@get(
    "/health/live",
    summary="Is the process alive",
    tags=["Operations"],
    security=[{}],
    opt=examples(answer={"status": "live"}),
)
async def live() -> Live:
    """Answer as soon as the event loop does."""
    return Live()


@get(
    "/health/ready",
    summary="Can it accept work",
    tags=["Operations"],
    security=[{}],
    opt=examples(answer=READY),
)
async def ready(state: State) -> Response[Ready]:
    """Answer 200 while work can be accepted, also degraded without Redis; 503 without Postgres or its tables."""
    found = await examine(state.engine, state.redis, state.schema_head)
    return Response(found, status_code=503 if found.status == "unready" else 200, headers={"Cache-Control": "no-store"})


@get("/metrics", summary="Metrics for Prometheus", tags=["Operations"], security=[{}], media_type="text/plain")
async def metrics(state: State) -> Response[bytes]:
    """Answer the metrics of this process and of the ledger; the latter are at most 5 seconds old."""
    ledger: LedgerMetrics = state.ledger_metrics
    try:
        async with asyncio.timeout(PATIENCE):
            await ledger.refresh(state.engine)
    except Exception as error:  # the rest of the metrics matters most when the database does not answer
        log.warning("metrics_ledger_failed", error=type(error).__name__)
    return Response(generate_latest(state.registry), media_type=CONTENT_TYPE_LATEST)


router = Router("/", route_handlers=[live, ready, metrics])
