"""A backup comes back whole, and what was on its way is set aside as the document says, not sent a second time."""

import asyncio
import dataclasses
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from sqlalchemy import text

from callboard_workers.execution.attempt import execute
from callboard_workers.message import Delivery
from callboard_workers.runtime import Runtime
from service.cli.tasks import requeue
from service.db import engine as db
from service.db import migrate
from service.dev.binaries import postgres_home
from service.dev.databases import Databases
from service.dev.stack import Stack
from service.settings import Settings
from tests.layout.repository import ROOT
from tests.service.conftest import client_of, working
from tests.service.emails.posting import post, work

FORCED = "SELECT array_agg(relname ORDER BY relname) FROM pg_class WHERE relforcerowsecurity"


def set_aside() -> str:
    """The statement of docs/operations.md."""
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    [statement] = re.findall(r"^```sql\n(UPDATE messages .*?)^```", page, re.MULTILINE | re.DOTALL)
    return str(statement)


async def run(program: str, *arguments: str) -> None:
    command = [str(postgres_home() / "bin" / program), *arguments]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, timeout=60)


async def ring_for_all(settings: Settings) -> int:
    """Every doorbell that a worker could have, also those that Redis still holds; how many were for anything."""
    async with client_of(settings), working(Runtime.of_loop()) as runtime:
        assert runtime.engine is not None
        async with runtime.engine.connect() as connection:
            ids = (await connection.execute(text("SELECT id FROM messages"))).scalars().all()
        outcomes = [await execute(runtime, Delivery(id=id, actor="emails.send_email", durable=True)) for id in ids]
    return sum(type(outcome).__name__ != "Ignored" for outcome in outcomes)


@pytest.fixture
def settings(database: str, redis_url: str, mailbox: Any) -> Settings:
    mail = {"SMTP_HOST": mailbox.host, "SMTP_PORT": str(mailbox.port)}
    return Settings.from_env(
        {"DATABASE_URL": database, "REDIS_URL": redis_url, "SECRET_KEY": "of the tests only", **mail}
    )


@pytest.fixture
def empty(stack: Stack, databases: Databases) -> Iterator[str]:
    databases.create("restored", "template0")
    yield stack.postgres.url("restored")
    databases.drop("restored")


async def test_a_restored_database_sends_nothing_twice(
    tmp_path: Path, empty: str, settings: Settings, api: httpx.AsyncClient, mailbox: Any
) -> None:
    before, lost, waiting = [await post(api, to=f"{name}@example.org") for name in ("before", "lost", "waiting")]
    await work(before)
    backup = str(tmp_path / "backup")
    await run("pg_dump", "--format=custom", f"--file={backup}", f"--dbname={settings.database_url}")
    await work(lost)
    assert len(mailbox.mails) == 2
    await run("pg_restore", f"--dbname={empty}", "--exit-on-error", backup)
    await is_whole(settings.database_url, empty)
    connection = await asyncpg.connect(empty)
    assert await connection.execute(set_aside()) == "UPDATE 2"
    await connection.close()
    restored = dataclasses.replace(settings, database_url=empty)
    assert await ring_for_all(restored) == 0
    assert len(mailbox.mails) == 2
    await requeue(restored, [waiting["id"]])
    assert await ring_for_all(restored) == 1
    assert [str(mail["To"]).partition("@")[0] for mail in mailbox.messages] == ["before", "lost", "waiting"]


async def is_whole(before: str, after: str) -> None:
    """The schema is the newest, the policies hold, and the keys are good."""
    found = []
    for url in (before, after):
        connection = await asyncpg.connect(url)
        found.append((await connection.fetchval(FORCED), await connection.fetchval("SELECT count(*) FROM api_keys")))
        await connection.close()
    assert found[0] == found[1]
    engine = db.create_engine(Settings.from_env({"DATABASE_URL": after}))
    assert await migrate.current(engine) == migrate.head()
    await engine.dispose()
