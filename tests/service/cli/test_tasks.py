"""`callboard dead`, `requeue`, `cancel` and `purge`, on real rows."""

import asyncio
import json
import os
import subprocess
import sys
from typing import Any
from uuid import uuid4

import httpx
import pytest
from click.testing import CliRunner, Result
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.message import Message
from service.cli.main import callboard
from service.settings import Settings
from tests.service.tasks.test_api import change, run_and_fail, store


@pytest.fixture
def command(settings: Settings, api: httpx.AsyncClient) -> Any:
    where = {"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url}

    async def run(*arguments: str, **more: Any) -> Result:
        return await asyncio.to_thread(CliRunner(env=where).invoke, callboard, arguments, **more)

    return run


async def dead_one(engine: AsyncEngine, error: str = "SmtpError") -> Message:
    message = await store(engine, "r-7")
    await run_and_fail(engine, message)
    told = json.dumps({"type": error, "message": "550 \u001b[31mno"})
    await change(engine, message, f"state='dead', finished_at=clock_timestamp(), error='{told}'")
    return message


async def test_dead_letters_are_listed(command: Any, engine: AsyncEngine) -> None:
    assert "Nothing waits" in (await command("dead")).output
    message, other = await dead_one(engine), await dead_one(engine, "Other")
    shown = (await command("dead")).output
    assert message.task_id in shown
    assert "SmtpError: 550" in shown
    assert "\x1b" not in shown
    found = json.loads((await command("dead", "--json", "--error", "Other")).output)
    assert [report["task_id"] for report in found] == [other.task_id]


async def test_one_is_queued_again_once(command: Any, engine: AsyncEngine, api: httpx.AsyncClient) -> None:
    message = await dead_one(engine)
    got = await command("requeue", f"em_{message.id.hex}")
    assert (got.exit_code, got.output.split()[0]) == (0, message.task_id), got.output
    again = await command("requeue", message.task_id)
    assert (again.exit_code, "left as it is: it is queued" in again.output) == (1, True)
    told = (await api.get(f"/v1/tasks/{message.task_id}")).json()
    assert (told["state"], told["history"][-1]["outcome"]) == ("queued", "requeued")
    assert told["history"][-1]["detail"]["by"].startswith("cli:")


async def test_one_that_is_named_twice_counts_once_and_one_that_is_none_is_said(
    command: Any, engine: AsyncEngine
) -> None:
    message, none = await dead_one(engine), uuid4()
    twice = await command("requeue", message.task_id, f"em_{message.id.hex}")
    assert (twice.exit_code, len(twice.output.splitlines())) == (0, 1), twice.output
    assert (await command("requeue", str(none))).output.strip() == f"{none} left: there is no such task"


async def test_many_are_chosen_by_error_after_a_question(command: Any, engine: AsyncEngine) -> None:
    first, second, other = await dead_one(engine), await dead_one(engine), await dead_one(engine, "Other")
    assert (await command("requeue", "--error", "SmtpError", input="n\n")).exit_code == 1
    got = await command("requeue", "--error", "SmtpError", "--yes")
    assert got.exit_code == 0
    assert first.task_id in got.output
    assert second.task_id in got.output
    assert other.task_id not in got.output
    assert "nothing" in (await command("requeue", "--error", "SmtpError", "--yes")).output


async def test_nothing_chosen_and_no_id_are_said(command: Any) -> None:
    assert (await command("requeue")).exit_code == 2
    assert (await command("requeue", "nonsense")).exit_code == 2
    assert (await command("cancel", "nonsense")).exit_code == 2


async def test_a_task_is_cancelled_once_it_is_known_and_waits(command: Any, engine: AsyncEngine) -> None:
    message = await store(engine)
    assert (await command("cancel", message.task_id)).output == f"{message.task_id} canceled\n"
    assert (await command("cancel", message.task_id)).exit_code in (0, 1)
    assert (await command("cancel", "0199f6d6-c3a1-712f-a0d5-f1f0a9c1e7b2")).exit_code == 1


async def test_a_doubt_is_settled_by_hand(command: Any, engine: AsyncEngine, api: httpx.AsyncClient) -> None:
    message = await dead_one(engine)
    assert (await command("resolve", message.task_id)).exit_code == 2  # as what?
    got = await command("resolve", f"em_{message.id.hex}", "--as", "done", "--reason", "the log of the server")
    assert (got.exit_code, got.output) == (0, f"{message.task_id} done\n")
    again = await command("resolve", message.task_id, "--as", "done")
    assert (again.exit_code, again.output) == (1, f"{message.task_id} left as it is: it is done\n")
    told = (await api.get(f"/v1/tasks/{message.task_id}")).json()
    assert (told["state"], told["history"][-1]["detail"]["reason"]) == ("done", "the log of the server")


async def test_a_purge_tells_how_many_wait_and_cancels_none_without_being_told_to(
    command: Any, engine: AsyncEngine, api: httpx.AsyncClient
) -> None:
    message = await store(engine, "r-8")
    told = await command("purge", message.queue)
    assert told.exit_code == 0
    assert f"Queue {message.queue}: 1 tasks wait, 0 run." in told.output
    assert "stay in Postgres" in told.output
    assert (await command("purge", message.queue, "--cancel", input="n\n")).exit_code == 1
    assert (await api.get(f"/v1/tasks/{message.task_id}")).json()["state"] == "queued"


async def test_a_purge_that_cancels_leaves_what_runs_and_other_queues_and_is_noted(
    command: Any, engine: AsyncEngine, api: httpx.AsyncClient
) -> None:
    first, running, elsewhere = [await store(engine, f"r-{number}") for number in range(3)]
    await change(engine, running, "state='running', epoch=1, worker='w', lease_until=now() + interval '1 h'")
    await change(engine, elsewhere, "queue='elsewhere'")
    done = await command("purge", first.queue, "--cancel", input="y\n")
    assert (done.exit_code, "Cancel 1 tasks?" in done.output) == (0, True), done.output
    assert "1 tasks canceled" in done.output
    states = [(await api.get(f"/v1/tasks/{each.task_id}")).json() for each in (first, running, elsewhere)]
    assert [each["state"] for each in states] == ["canceled", "running", "queued"]
    [noted] = states[0]["history"]
    assert (noted["outcome"], noted["detail"]["reason"]) == ("canceled", f"purge of {first.queue}")
    assert noted["detail"]["by"].startswith("cli:")
    assert "0 tasks wait" in (await command("purge", first.queue, "--cancel", "--yes")).output


async def test_celerys_purge_says_that_it_cancels_nothing(
    settings: Settings, engine: AsyncEngine, api: httpx.AsyncClient
) -> None:
    message = await store(engine, "r-9")
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "celery", "-A", "service", "purge", "-f"],
        env={**os.environ, "DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "callboard purge QUEUE --cancel" in done.stderr
    assert (await api.get(f"/v1/tasks/{message.task_id}")).json()["state"] == "queued"
