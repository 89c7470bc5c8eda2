"""Runs the operational checks that `status`, the console and `/health/ready` share."""

from callboard_workers.redis import address
from service.cli.doctor.finding import Finding, Mark, Section
from service.db import engine as db
from service.db import migrate
from service.health import checks
from service.settings import Settings

SERVERS = frozenset({"postgres", "schema", "redis"})
"""Findings that the sections of the servers report in more detail."""
MARKS = {"error": Mark.WRONG, "warning": Mark.DOUBTFUL}


async def examine(settings: Settings) -> Section:
    """Check the workers, the queues, the disks and the webhook endpoints of a deployment."""
    engine = db.create_engine(settings, application="callboard-doctor", pool_timeout=2, statement_timeout=5)
    redis = address.async_client(settings.redis_url, socket_timeout=2, socket_connect_timeout=2)
    try:
        report = await checks.examine(
            engine, redis, migrate.head(), prefix=settings.redis_key_prefix, data=settings.data
        )
    finally:
        await redis.aclose()
        await engine.dispose()
    findings = [
        Finding(what=found.name, mark=MARKS[found.severity], detail=found.sentence, mend=found.fix)
        for found in report.findings
        if found.name not in SERVERS
    ]
    if not findings and all(check.ok for check in report.checks.values()):
        findings = [Finding(what="workers", mark=Mark.WELL, detail="Every queue with work has a worker.")]
    return Section(name="Work", findings=findings)
