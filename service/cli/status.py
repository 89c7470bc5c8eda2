"""`callboard status`: the findings of the operational checks, and what waits."""

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.redis import address
from service.db import engine as db
from service.db import migrate
from service.health.checks import Finding, examine
from service.settings import Settings
from service.tasks.queue_stats import QueueReport, Queues
from service.timeline.text import humane
from service.web.health import Ready
from service.web.metrics import KEPT

COLORS = {"ready": "green", "degraded": "yellow", "unready": "red"}


async def run(settings: Settings, console: Console | None = None) -> int:
    """Print the state of the servers, every finding with its fix, and the queues; 1 where work cannot be accepted."""
    out = console or Console()
    engine = db.create_engine(settings, application="callboard-status", pool_timeout=2, statement_timeout=5)
    client = address.async_client(settings.redis_url, socket_timeout=1, socket_connect_timeout=1)
    try:
        report = await examine(engine, client, migrate.head(), prefix=settings.redis_key_prefix, data=settings.data)
        found = Ready.of(report)
        out.print(_health(found))
        for finding in found.findings:
            out.print(_finding(finding), soft_wrap=True)
        if found.status != "unready":
            out.print(_queues(await Queues(engine, client, settings.redis_key_prefix).report(None)))
            out.print(await _held(engine))
    finally:
        await client.aclose()
        await engine.dispose()
    return 1 if found.status == "unready" else 0


def _health(found: Ready) -> Group:
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, check in found.checks.items():
        mark = Text("ok", "green") if check.ok else Text("failing", "red")
        table.add_row(name, mark, f"{check.ms} ms", check.detail)
    return Group(Text(found.status, f"bold {COLORS[found.status]}"), table)


def _finding(finding: Finding) -> Text:
    color = "red" if finding.severity == "error" else "yellow"
    return Text.assemble((f"{finding.severity}: {finding.sentence}", color), f"\n  → {finding.fix}")


def _queues(found: Sequence[QueueReport]) -> RenderableType:
    busy = [report for report in found if report.due or report.scheduled or report.running or report.arrivals]
    if not busy:
        return Text("nothing waits", "dim")
    heads = "queue", "priority", "due", "later", "running", "oldest", "arrive/s", "doorbells"
    table = Table(box=None, pad_edge=False)
    for number, head in enumerate(heads):
        table.add_column(head, justify="left" if number < 2 else "right")
    for report in busy:
        oldest = "-" if report.oldest_age is None else humane(report.oldest_age * 1000)
        bells = "?" if report.doorbells is None else str(report.doorbells)
        counts = str(report.due), str(report.scheduled), str(report.running), oldest, f"{report.arrivals:g}", bells
        table.add_row(report.queue, report.priority, *counts)
    return table


async def _held(engine: AsyncEngine) -> Text:
    async with engine.connect() as connection:
        held = [row for row in (await connection.execute(KEPT)).all() if row.state != "running"]
    if not held:
        return Text("")
    counts = "  ".join(f"{row.held} {row.state} ({row.queue})" for row in held)
    return Text.assemble((counts, "red"), "  `callboard dead` lists them")
