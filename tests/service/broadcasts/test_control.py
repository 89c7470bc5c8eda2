"""Pause, resume and cancel of a broadcast whose emails are on their way: what they cost, and what the API reports."""

import asyncio
import re
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.policy import Snoozed
from service.broadcasts import repository
from tests.plans import explain, nodes, touched
from tests.service.broadcasts.test_api import ask, command, expand, look, people
from tests.service.emails.posting import execute_sql

WAITING = 400
PAGES = 60
"""Pages per row: the row, its version that a worker wrote meanwhile, its indexes, and its own triggers' tables."""
BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
WORKERS = "UPDATE messages SET progress = '{}' WHERE actor = 'emails.send_email'"
PAUSED = "UPDATE messages SET due_at = now() + interval '1 day' WHERE actor = 'emails.send_email'"


def numbered(statement: TextClause, **values: Any) -> tuple[str, tuple[Any, ...]]:
    """A statement as asyncpg takes it."""
    names = list(values)
    return re.sub(r"(?<!:):(\w+)", lambda found: f"${names.index(found[1]) + 1}", statement.text), (*values.values(),)


async def explain_under_load(engine: AsyncEngine, sql: str, arguments: tuple[Any, ...]) -> dict[str, Any]:
    """The plan of a statement that met rows which workers had changed and not yet committed when it began."""
    async with engine.connect() as workers, engine.connect() as control, engine.connect() as watching:
        await workers.execute(text(WORKERS))
        raw: Any = (await control.get_raw_connection()).driver_connection
        explaining = asyncio.create_task(explain(raw, sql, arguments))
        while not (await watching.execute(text(BLOCKED))).scalar_one():
            await watching.rollback()
            await asyncio.sleep(0.02)
        await workers.commit()
        return await explaining


@pytest.mark.parametrize("verb", ["pause", "resume", "cancel", "throttle"])
async def test_controlling_a_running_broadcast_reads_each_of_its_emails_once(
    api: httpx.AsyncClient, engine: AsyncEngine, verb: str
) -> None:
    bulk = await ask(api, recipients=people(WAITING))
    await expand(bulk)
    if verb == "resume":
        await execute_sql(PAUSED)
    id = UUID(bulk["task_id"])
    common = {"gate": f"bulk:{id}", "id": id}
    sql, arguments = {
        "pause": numbered(repository.PARK, **common),
        "resume": numbered(repository.UNPARK, **common),
        "cancel": numbered(repository.CANCEL, **common),
        "throttle": numbered(repository.PACE, **common, pace=10, period=1.0),
    }[verb]
    plan = await explain_under_load(engine, sql, arguments)
    locked = [each for each in nodes(plan) if each["Node Type"] == "LockRows"]
    assert locked[0]["Actual Rows"] >= WAITING
    print(f"{verb}: {touched(plan)} pages for {WAITING} emails, {touched(locked[0])} to lock them")
    assert touched(locked[0]) <= PAGES * WAITING


async def test_a_healthy_broadcast_reports_no_error(api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.broadcasts.dispatch.CHUNK", 5)
    monkeypatch.setattr("service.broadcasts.dispatch.WINDOW", 5)
    bulk = await ask(api, recipients=people(12))
    assert isinstance(await expand(bulk), Snoozed)
    assert (await look(api, bulk)).get("error") is None
    assert (await command(api, bulk, "pause")).json().get("error") is None
    await execute_sql("UPDATE messages SET due_at = now() WHERE actor = 'emails.expand_bulk'")
    assert isinstance(await expand(bulk), Snoozed)
    assert (await look(api, bulk)).get("error") is None
    await execute_sql("""UPDATE messages SET error = '{"type": "Retry", "message": "away"}' WHERE queue = 'email'""")
    assert (await look(api, bulk))["error"] == {"code": "Retry", "detail": "away", "retryable": True}
