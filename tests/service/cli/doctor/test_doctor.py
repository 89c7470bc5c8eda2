"""The doctor tells the well from the doubtful and the wrong, on real servers, and says how to mend each."""

import io
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner
from rich.console import Console

from service.cli import doctor
from service.cli.doctor import Mark, Section
from service.cli.main import callboard
from service.settings import Settings
from tests.faults.sink import Rule, Sink


def settings_of(database: str, redis_url: str, smtp: Any, **more: str) -> Settings:
    return Settings.from_env(
        {
            "DATABASE_URL": database,
            "REDIS_URL": redis_url,
            "SMTP_HOST": smtp.host,
            "SMTP_PORT": str(smtp.port),
            "MAIL_FROM": "Doctor <doctor@example.org>",
            **more,
        }
    )


def wrong(sections: list[Section]) -> list[str]:
    return [
        f"{section.name} {finding.what}"
        for section in sections
        for finding in section.findings
        if finding.mark is Mark.WRONG
    ]


@pytest.fixture
def nowhere() -> Any:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def said(run: Any, *args: Any, **options: Any) -> tuple[int, str]:
    text = io.StringIO()
    code = run(*args, console=Console(file=text, width=110), **options)
    return code, text.getvalue()


async def test_all_that_is_well_is_found_well(database: str, redis_url: str) -> None:
    async with Sink() as sink:
        sections = await doctor.examine(settings_of(database, redis_url, sink))
    assert wrong(sections) == []
    assert {section.name: [finding.what for finding in section.findings] for section in sections} == {
        "Postgres": ["connect", "version", "writable", "durability", "role", "clock", "migrations", "rights"],
        "Redis": ["ping", "version", "role", "commands", "maxmemory-policy", "appendonly", "write"],
        "Work": ["workers-missing"],
        "SMTP": ["dns", "connect", "banner", "ehlo", "mail"],
    }
    assert sink.mails == []


async def test_a_mail_is_sent_on_request_and_only_then(database: str, redis_url: str) -> None:
    async with Sink() as sink:
        settings = settings_of(database, redis_url, sink)
        sections = await doctor.examine(settings, send_to="you@example.org")
    sent = sections[-1].findings[-1]
    assert (sent.what, sent.mark) == ("send", Mark.WELL)
    assert sink.mails[0].recipients == ["you@example.org"]
    assert sink.mails[0].message_id in sent.detail


@pytest.mark.parametrize("address", ["nobody", "a@example.org, b@example.org", "a@example.org\r\nRCPT TO:<b@c.d>"])
async def test_a_wrong_address_sends_nothing(database: str, redis_url: str, address: str) -> None:
    async with Sink() as sink:
        sections = await doctor.examine(settings_of(database, redis_url, sink), send_to=address)
    assert wrong(sections) == ["SMTP send"]
    assert sink.mails == []


async def test_a_refused_test_mail_is_told_in_the_servers_words(database: str, redis_url: str) -> None:
    async with Sink({"rcpt": [Rule("550 5.1.1 no such user")]}) as sink:
        sections = await doctor.examine(settings_of(database, redis_url, sink), send_to="gone@example.org")
    assert wrong(sections) == ["SMTP send"]
    assert "no such user" in sections[-1].findings[-1].detail


async def test_a_database_without_tables_wants_migrating(empty_database: str, redis_url: str) -> None:
    async with Sink() as sink:
        sections = await doctor.examine(settings_of(empty_database, redis_url, sink))
    assert wrong(sections) == ["Postgres migrations"]
    assert "callboard migrate" in sections[0].findings[-1].mend
    assert sections[0].findings[-1].detail.startswith("the database is at nothing, this version needs 2")


async def test_a_redis_that_evicts_is_wrong_and_one_without_a_log_doubtful(database: str, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        before = client.config_get("maxmemory-policy", "appendonly")
        try:
            client.config_set("maxmemory-policy", "allkeys-lru", "appendonly", "no")
            async with Sink() as sink:
                sections = await doctor.examine(settings_of(database, redis_url, sink))
        finally:
            client.config_set(*[part for pair in before.items() for part in pair])
    assert wrong(sections) == ["Redis maxmemory-policy"]
    marks = {finding.what: finding.mark for finding in sections[1].findings}
    assert marks["appendonly"] is Mark.DOUBTFUL


async def test_what_does_not_answer_is_wrong_and_does_not_hide_the_rest(nowhere: int) -> None:
    settings = settings_of(
        f"postgresql://u:secret@127.0.0.1:{nowhere}/x",
        f"redis://:secret@127.0.0.1:{nowhere}/0",
        type("Nowhere", (), {"host": "127.0.0.1", "port": nowhere}),
    )
    sections = await doctor.examine(settings)
    assert wrong(sections) == ["Postgres connect", "Redis ping", "SMTP connect"]
    assert all(finding.mend for section in sections for finding in section.findings if finding.mark is Mark.WRONG)
    assert "secret" not in repr(sections)


async def test_a_stripped_starttls_ends_there(database: str, redis_url: str) -> None:
    async with Sink() as sink:
        sections = await doctor.examine(settings_of(database, redis_url, sink, SMTP_TLS="starttls"))
    assert wrong(sections) == ["SMTP starttls"]


def test_the_command_prints_a_line_for_everything_and_ends_with_1(nowhere: int, database: str, redis_url: str) -> None:
    smtp = type("Nowhere", (), {"host": "127.0.0.1", "port": nowhere})
    settings = settings_of(database, redis_url, smtp)
    code, text = said(doctor.run, settings)
    assert code == 1
    assert "✓  migrations" in text
    assert "✗  connect" in text
    assert "→ Check SMTP_HOST and SMTP_PORT" in text
    assert "1 of" in text


def test_json_has_everything_and_nothing_else(nowhere: int, database: str, redis_url: str) -> None:
    smtp = type("Nowhere", (), {"host": "127.0.0.1", "port": nowhere})
    code, text = said(doctor.run, settings_of(database, redis_url, smtp), as_json=True)
    found = json.loads(text)
    assert (code, found["ok"]) == (1, False)
    assert [section["name"] for section in found["sections"]] == ["Postgres", "Redis", "Work", "SMTP"]
    assert found["sections"][3]["findings"][-1]["mark"] == "wrong"


def test_the_command_ends_with_0_where_all_is_well(database: str, redis_url: str, mailbox: Any) -> None:
    code, text = said(doctor.run, settings_of(database, redis_url, mailbox), send_to="you@example.org")
    assert code == 0, text
    assert "weaken a promise" in text
    assert [mail["Subject"] for mail in mailbox.messages] == ["A test mail of callboard doctor"]


def test_the_command_takes_the_servers_of_up(database: str, redis_url: str, mailbox: Any, tmp_path: Path) -> None:
    smtp = f"{mailbox.host}:{mailbox.port}"
    running = {"database_url": database, "redis_url": redis_url, "smtp": smtp, "mailbox": "http://127.0.0.1:1"}
    (tmp_path / "up.json").write_text(json.dumps(running))
    bare = dict.fromkeys(name for name in os.environ if name.startswith(("SMTP_", "DATABASE_", "REDIS_")))
    runner = CliRunner(env={**bare, "DATABASE_URL": None, "SMTP_HOST": None})
    got = runner.invoke(callboard, ["doctor", "--json", "--data", str(tmp_path)])
    assert got.exit_code == 0, got.output
    other = CliRunner(env={**bare, "DATABASE_URL": None, "SMTP_HOST": "127.0.0.1", "SMTP_PORT": "1"})
    assert other.invoke(callboard, ["doctor", "--json", "--data", str(tmp_path)]).exit_code == 1
