"""`callboard trace` and `callboard status`, as a terminal shows them."""

import io
import json
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
from click.testing import CliRunner
from rich.console import Console
from sqlalchemy.ext.asyncio import AsyncEngine

from service.cli import status, trace
from service.cli.hints import nothing_near
from service.cli.main import callboard
from service.settings import Settings
from tests.service.tasks.test_api import change, run_and_fail, store


def screen() -> tuple[io.StringIO, Console]:
    stream = io.StringIO()
    return stream, Console(file=stream, width=200)


async def test_the_story_is_a_timeline(api: httpx.AsyncClient, engine: AsyncEngine, settings: Settings) -> None:
    message = await store(engine, "r-9")
    await run_and_fail(engine, message)
    await change(engine, message, 'error = \'{"message": "\\u001b[31mred [bold]x[/bold]"}\'')
    stream, console = screen()
    assert await trace.run(settings, "r-9", console) == 0
    text = stream.getvalue()
    order = ["request_received", "task_queued", "attempt_started", "attempt_retry"]
    places = [text.index(what) for what in order]
    assert places == sorted(places)
    assert "emails.send_email" in text
    assert "POST /v1/emails" in text
    assert "\x1b[31m" not in text


async def test_the_story_of_a_mail_as_json_is_the_apis(
    api: httpx.AsyncClient, engine: AsyncEngine, settings: Settings
) -> None:
    await store(engine, "r-9")
    stream, console = screen()
    assert await trace.run(settings, "r-9", console, as_json=True) == 0
    assert json.loads(stream.getvalue()) == (await api.get("/v1/requests/r-9")).json()


async def test_a_request_nobody_knows_is_said_plainly(settings: Settings) -> None:
    stream, console = screen()
    assert await trace.run(settings, "none", console) == 1
    assert "Nothing matches none." in stream.getvalue()


@pytest.mark.parametrize("spelled", ["{}", "em_{0.hex}", "{0.hex}"])
async def test_any_id_of_what_a_request_caused_shows_its_timeline(
    api: httpx.AsyncClient, engine: AsyncEngine, settings: Settings, spelled: str
) -> None:
    message = await store(engine, "r-9")
    stream, console = screen()
    assert await trace.run(settings, spelled.format(message.id), console) == 0
    assert "r-9" in stream.getvalue()


async def test_an_id_that_nothing_has_is_said_plainly(settings: Settings) -> None:
    for wanted in (f"em_{'0' * 32}", "0" * 32, "nosuch"):
        stream, console = screen()
        assert await trace.run(settings, wanted, console) == 1
        assert f"Nothing matches {wanted}." in stream.getvalue()


async def test_the_status_shows_dependencies_and_queues(
    api: httpx.AsyncClient, engine: AsyncEngine, settings: Settings
) -> None:
    await store(engine)
    stream, console = screen()
    assert await status.run(settings, console) == 0
    assert "degraded" in stream.getvalue()
    assert "No worker runs" in stream.getvalue()
    assert "normal" in stream.getvalue()


async def test_the_status_of_what_is_away_says_so() -> None:
    away = Settings.from_env({"DATABASE_URL": "postgresql://x@127.0.0.1:1/x", "REDIS_URL": "redis://127.0.0.1:1/0"})
    stream, console = screen()
    assert await status.run(away, console) == 1
    assert "unready" in stream.getvalue()


def test_the_command_finds_the_servers_of_up(settings: Settings, tmp_path: Any) -> None:
    (tmp_path / "up.json").write_text(
        f'{{"database_url": "{settings.database_url}", "redis_url": "{settings.redis_url}"}}'
    )
    got = CliRunner(env={"DATABASE_URL": None}).invoke(callboard, ["status", "--data", str(tmp_path)])
    assert got.exit_code == 0, got.output
    assert "nothing waits" in got.output


def test_a_command_with_no_server_to_ask_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    with click.Context(callboard) as context:
        assert nothing_near() == "", "a command that looks nowhere"
        context.params["data"] = tmp_path
        assert f"does not run in {tmp_path}, and DATABASE_URL is not set" in nothing_near()
        monkeypatch.setenv("DATABASE_URL", "postgresql://x@127.0.0.1:1/x")
        assert nothing_near() == ""


@pytest.mark.parametrize("command", [["dead"], ["trace", "r-1"], ["keys", "list"]])
def test_tables_that_are_missing_want_migrating(empty_database: str, command: list[str]) -> None:
    got = CliRunner(env={"DATABASE_URL": empty_database}).invoke(callboard, command)
    assert (got.exit_code, "run `callboard migrate`" in got.output) == (1, True), got.output


def test_wrong_settings_are_all_named(tmp_path: Any) -> None:
    got = CliRunner().invoke(callboard, ["status"], env={"DATABASE_URL": "x", "API_PORT": "y"})
    assert got.exit_code == 1
    assert "DATABASE_URL" in got.output
    assert "API_PORT" in got.output
    assert "Traceback" not in got.output
