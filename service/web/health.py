"""`/health/live`, `/health/ready` and `/metrics`: is the process alive, can it serve, how does it fare."""

import asyncio
from typing import Literal

import msgspec
import structlog
from litestar import Response, Router, get
from litestar.datastructures import State
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from service.health.checks import UNREADY, Check, Finding, Report
from service.web.metrics import LedgerMetrics
from service.web.openapi import examples

log = structlog.get_logger("service.web")

PATIENCE = 2.0  # seconds for the ledger's metrics
READY = {
    "status": "degraded",
    "checks": {
        "postgres": {"ok": True, "ms": 1.1, "detail": ""},
        "schema": {"ok": True, "ms": 1.9, "detail": ""},
        "redis": {"ok": False, "ms": 1000.4, "detail": "TimeoutError: Timeout connecting to server"},
    },
    "findings": [
        {
            "name": "redis",
            "severity": "error",
            "sentence": "Redis does not respond: TimeoutError: Timeout connecting to server.",
            "fix": "Accepted work waits until it responds. Check that it runs and REDIS_URL names it.",
        }
    ],
}


class Live(msgspec.Struct):
    """The loop answers."""

    status: Literal["live"] = "live"


class Ready(msgspec.Struct):
    """`ready`: no error. `degraded`: accepts work, but an error keeps some of it waiting. `unready`: accepts no work.

    `findings` lists what is wrong, errors first; warnings alone leave the status `ready`.
    """

    status: Literal["ready", "degraded", "unready"]
    checks: dict[str, Check]
    findings: list[Finding] = msgspec.field(default_factory=list)

    @classmethod
    def of(cls, report: Report) -> "Ready":
        """Derive the status from a report."""
        errors = {finding.name for finding in report.findings if finding.severity == "error"}
        status: Literal["ready", "degraded", "unready"] = "degraded" if errors else "ready"
        return cls("unready" if errors & UNREADY else status, report.checks, report.findings)


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
    """Answer 200 while work can be accepted, also degraded; 503 without Postgres, its tables, or space on its disk.

    The report is at most a few seconds old. `findings` are those of `callboard status`, `callboard doctor` and the
    console.
    """
    found = Ready.of(await state.checks.report())
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
    state.finding_metrics.set(await state.checks.findings())
    return Response(generate_latest(state.registry), media_type=CONTENT_TYPE_LATEST)


router = Router("/", route_handlers=[live, ready, metrics])
