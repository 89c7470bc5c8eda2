"""`callboard status`: is everything well, and what waits."""

from typing import Any

import redis.asyncio
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text
from sqlalchemy.ext.asyncio import AsyncEngine

from service import db, migrate
from service.settings import Settings
from service.web.health import Ready, examine
from service.web.metrics import HELD, QUEUES
from workers.message import Priority

COLORS = {"ready": "green", "degraded": "yellow", "unready": "red"}


async def run(settings: Settings, console: Console | None = None) -> int:
    """Print the state of Postgres, Redis, the schema and the queues; 1 where work cannot be accepted."""
    out = console or Console()
    engine = db.create_engine(settings, application="callboard-status", pool_timeout=2, statement_timeout=5)
    client = redis.asyncio.Redis.from_url(settings.redis_url, socket_timeout=1, socket_connect_timeout=1)
    try:
        found = await examine(engine, client, migrate.head())
        out.print(_health(found))
        if found.status != "unready":
            out.print(await _queues(engine))
    finally:
        await client.aclose()
        await engine.dispose()
    return 1 if found.status == "unready" else 0


def _health(found: Ready) -> Group:
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, check in found.checks.items():
        mark = Text("well", "green") if check.ok else Text("away", "red")
        table.add_row(name, mark, f"{check.ms} ms", check.detail)
    return Group(Text(found.status, f"bold {COLORS[found.status]}"), table)


async def _queues(engine: AsyncEngine) -> Any:
    async with engine.connect() as connection:
        waiting = (await connection.execute(QUEUES)).all()
        states = ["running", "dead", "uncertain", "held"]
        held = (await connection.execute(HELD, {"states": states})).all()
    table = Table("queue", "priority", "due", "later", "oldest", box=None, pad_edge=False)
    for row in sorted(waiting, key=lambda row: (row.queue, row.priority)):
        oldest = f"{max(row.oldest, 0):.0f} s" if row.due else "-"
        table.add_row(row.queue, Priority.of(row.priority), str(row.due), str(row.waiting - row.due), oldest)
    others = "  ".join(f"{row.state} {row.held} ({row.queue})" for row in held)
    return Group(table if waiting else Text("nothing waits", "dim"), Text(others))
