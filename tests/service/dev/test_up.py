"""`callboard up` as a person runs it: one process started, all of it there, all of it gone."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from celery import Celery

from service.dev.ports import free_port
from service.dev.stack import temporary_parent
from tests.conftest import lacking

if TYPE_CHECKING:
    from tests.conftest import Mailbox

ROOT = Path(__file__).parents[3]
OURS = ("DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL", "SMTP_HOST", "PYTHONDONTWRITEBYTECODE", "LOG_FORMAT")


class Up:
    """A running `callboard up` with its output."""

    def __init__(self, data: Path, port: int, *options: str, **environment: str) -> None:
        self.data = data
        self.port = port
        self.output = data.with_name(data.name + ".log")
        kept = {name: value for name, value in os.environ.items() if name not in OURS}
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "service", "up", "--port", str(port), "--data", str(data), *options],
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=kept | environment,
            )

    @property
    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def facts(self) -> dict[str, str]:
        file = self.data / "up.json"
        self.until(lambda: file.exists() and json.loads(file.read_text())["pid"] == self.process.pid, "ready", 90)
        self.until(lambda: "Send a mail:" in self.said, "greeting", 30)
        return json.loads(file.read_text())

    def until(self, true: Callable[[], object], what: str, timeout: float = 90.0) -> None:
        deadline = time.monotonic() + timeout
        while not true():
            assert self.process.poll() is None, f"it ended:\n{self.said}"
            assert time.monotonic() < deadline, f"not {what} after {timeout} s:\n{self.said}"
            time.sleep(0.05)

    def end(self, number: int, timeout: float = 90.0) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout)

    def family(self) -> dict[int, str]:
        """Every living process of it: by the port in its environment, or by its data."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                environment = (process / "environ").read_bytes().split(b"\0")
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                here = str(self.data) in command or (process / "cwd").readlink().is_relative_to(self.data)
            except OSError:
                continue
            if here or f"API_PORT={self.port}".encode() in environment:
                found[int(process.name)] = command
        return found

    def pid_of(self, words: str) -> int:
        """The oldest process with these words in its command line."""
        return min(pid for pid, command in self.family().items() if words in command)

    def until_gone(self, timeout: float = 60.0) -> None:
        deadline = time.monotonic() + timeout
        while left := self.family():
            assert time.monotonic() < deadline, f"left behind: {left}"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="callboard-up-", dir=temporary_parent()))
    yield path / "data"
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def up(place: Path) -> Iterator[Up]:
    running = Up(place, free_port())
    running.facts()
    yield running
    if running.process.poll() is None:
        running.end(signal.SIGINT)
    running.until_gone()


def send(facts: dict[str, str], subject: str, key: str = "key") -> httpx.Response:
    return httpx.post(
        f"{facts['api']}/v1/emails",
        headers={"Authorization": f"Bearer {facts[key]}"},
        json={"to": "ada@example.org", "subject": subject, "text": "It works."},
        timeout=60,
    )


def arrived(facts: dict[str, str], subject: str) -> bool:
    found = httpx.get(f"{facts['mailbox']}/api/v1/search", params={"query": f'subject:"{subject}"'}, timeout=60)
    return bool(found.json()["messages_count"])


def test_what_a_program_needs_is_in_a_file_for_its_owner_alone(up: Up) -> None:
    facts = up.facts()
    assert facts["api"] == f"http://127.0.0.1:{up.port}"
    assert facts["key"].startswith("cb_live_")
    assert facts["test_key"].startswith("cb_test_")
    assert facts["pid"] == up.process.pid
    assert {"mailbox", "console", "smtp", "database_url", "redis_url"} <= facts.keys()
    assert (up.data / "up.json").stat().st_mode & 0o777 == 0o600


def test_a_person_sees_aligned_lines_without_colour_in_a_file(up: Up) -> None:
    up.facts()
    assert "\x1b" not in up.said
    lines = [line for line in up.said.splitlines() if "│" in line]
    assert len({line.index("│") for line in lines}) == 1
    assert "Ctrl-C stops everything" in up.said


def test_the_first_start_shows_no_line_that_looks_like_trouble(up: Up) -> None:
    up.facts()
    for noise in ("alembic_version", "setup plugin", "ERROR"):
        assert noise not in up.said


def test_a_mail_goes_all_the_way_to_the_mailbox(up: Up) -> None:
    facts = up.facts()
    assert send(facts, "all the way").status_code == 202
    up.until(lambda: arrived(facts, "all the way"), "in the mailbox")
    up.until(lambda: 'mail_received subject="all the way"' in up.said, "told")


def test_a_test_email_needs_no_recipient_and_no_sender(up: Up) -> None:
    facts = up.facts()
    key = {"Authorization": f"Bearer {facts['key']}"}
    bare = httpx.post(f"{facts['api']}/send-test-email", headers=key, timeout=60)
    assert bare.status_code == 202, bare.text
    up.until(lambda: arrived(facts, "Test email"), "in the mailbox")


def test_the_line_to_paste_works(up: Up) -> None:
    if shutil.which("curl") is None:
        lacking("there is no curl to paste the line into")
    facts = up.facts()
    lines = up.said.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("curl "))
    pasted = "\n".join(lines[start : start + 2])
    done = subprocess.run(["sh", "-c", f"{pasted} --silent"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["status"] in ("queued", "sending", "sent")
    up.until(lambda: arrived(facts, "Hello"), "in the mailbox")


def another(up: Up, port: int, data: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "service", "up", "--port", str(port), "--data", str(data)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_celery_client_gets_its_result(up: Up) -> None:
    where = up.facts()["redis_url"]
    with Celery("shop", broker=where, backend=where) as client:
        assert client.send_task("reset_quotas_task").get(timeout=60)["forgotten"] == 0


def beside(up: Up, *words: str) -> subprocess.CompletedProcess[str]:
    """A command in the folder of `up`, without any address in the environment."""
    kept = {name: value for name, value in os.environ.items() if name not in OURS}
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env=kept | {"CALLBOARD_DATA": str(up.data)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_celerys_own_commands_find_the_servers(up: Up) -> None:
    up.facts()
    done = beside(up, "celery", "-A", "service", "inspect", "ping", "--timeout", "30")
    assert "1 node online." in done.stdout, done.stdout + done.stderr


def test_the_doctor_finds_nothing_to_warn_of(up: Up) -> None:
    up.facts()
    done = beside(up, "service", "doctor", "--json")
    marks = {
        finding["what"]: finding["mark"] for part in json.loads(done.stdout)["sections"] for finding in part["findings"]
    }
    assert set(marks.values()) == {"well"}, marks


def test_a_second_one_on_the_same_data_is_refused_by_name(up: Up) -> None:
    said = another(up, free_port(), up.data)
    assert f"in use by process {up.process.pid}" in said
    assert "--data" in said


def test_a_second_one_beside_the_first_is_told_where_the_first_is(up: Up) -> None:
    said = another(up, up.port, up.data)
    assert f"runs there already, at http://127.0.0.1:{up.port}" in said


def test_a_taken_port_is_refused_with_its_holder_and_the_command_to_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "service", "up", "--port", str(port), "--data", str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env=os.environ | {"CALLBOARD_PROGRAM": "python3 start"},
        )
    assert done.returncode == 1
    assert f"port {port} is taken by process {os.getpid()} (" in done.stderr
    offer = done.stderr.strip().splitlines()[-1]
    assert "python3 start up --port " in offer
    assert str(port) not in offer.split("--port ")[1].split()[0]
    assert offer.endswith(f"--data {os.path.relpath(tmp_path, ROOT)}")


WORDS = {
    "worker": "celery --quiet -A service worker",
    "api": "service api",
    "valkey": "valkey-server",
    "postgres": "bin/postgres",
}


@pytest.mark.parametrize(("name", "words"), WORDS.items())
def test_a_killed_child_is_started_again_and_work_goes_on(up: Up, name: str, words: str) -> None:
    facts = up.facts()
    up.until(lambda: httpx.get(f"{facts['api']}/health/ready", timeout=60).json()["status"] == "ready", "well")
    before, already = up.pid_of(words), up.said.count(f"{name} is back after")
    os.kill(before, signal.SIGKILL)
    up.until(lambda: up.said.count(f"{name} is back after") > already, f"back ({name})")
    assert f"{name} was ended by SIGKILL; it starts again in" in up.said

    def accepted() -> bool:
        try:
            return send(facts, f"after {name}").status_code == 202
        except httpx.TransportError:
            return False

    up.until(accepted, "accepting")
    up.until(lambda: arrived(facts, f"after {name}"), "in the mailbox")


def test_kill_9_leaves_nothing_behind_and_the_next_start_has_everything(up: Up, place: Path) -> None:
    facts = up.facts()
    os.kill(up.process.pid, signal.SIGKILL)
    up.process.wait()
    up.until_gone()

    again = Up(place, up.port)
    try:
        later = again.facts()
        assert (later["key"], later["database_url"], later["mailbox"]) == (
            facts["key"],
            facts["database_url"],
            facts["mailbox"],
        )
        assert arrived(later, "all the way")
        assert "newest schema" not in again.said
        assert send(later, "next time").status_code == 202
        again.until(lambda: arrived(later, "next time"), "in the mailbox")
    finally:
        assert again.end(signal.SIGINT) == 0
    assert "stopped after" in again.said
    assert not (place / "up.json").exists()
    again.until_gone()
    with socket.create_server(("127.0.0.1", up.port)):
        pass


def test_a_second_ctrl_c_kills_what_does_not_stop(place: Path) -> None:
    up = Up(place, free_port())
    up.facts()
    os.kill(up.pid_of(WORDS["worker"]), signal.SIGSTOP)
    up.process.send_signal(signal.SIGINT)
    up.until(lambda: "stopping" in up.said, "stopping")
    time.sleep(0.5)
    assert up.end(signal.SIGINT) == 0
    assert "killing" in up.said
    up.until_gone()


async def test_servers_that_the_environment_names_are_used(
    tmp_path: Path, empty_database: str, redis_url: str, mailbox: "Mailbox"
) -> None:
    outside = {"DATABASE_URL": empty_database, "REDIS_URL": redis_url, "SMTP_HOST": mailbox.host}
    up = Up(tmp_path / "data", free_port(), "--workers", "2", **outside, SMTP_PORT=str(mailbox.port))
    try:
        facts = await asyncio.to_thread(up.facts)
        assert (facts["database_url"], facts["redis_url"], facts["mailbox"]) == (empty_database, redis_url, None)
        commands = " ".join(up.family().values())
        assert "valkey-server" not in commands
        assert "bin/postgres" not in commands
        assert {"worker-1@", "worker-2@"} <= {word[:9] for word in commands.split()}
        assert (await asyncio.to_thread(send, facts, "outside")).status_code == 202
        await mailbox.wait(1)
        assert mailbox.messages[0]["Subject"] == "outside"
    finally:
        assert up.end(signal.SIGINT) == 0
        up.until_gone()


def test_it_stops_at_once_while_it_still_starts(tmp_path: Path) -> None:
    starting = Up(tmp_path / "data", free_port())
    starting.until(lambda: "making the database" in starting.said, "starting")
    assert starting.end(signal.SIGTERM) == 0
    starting.until_gone()


def test_a_database_that_does_not_answer_is_named(tmp_path: Path) -> None:
    url = f"postgresql://nobody:secret@127.0.0.1:{free_port()}/none"
    up = Up(tmp_path / "data", free_port(), DATABASE_URL=url)
    assert up.process.wait(120) == 1
    assert f"The database at 127.0.0.1:{url.split(':')[3].split('/', maxsplit=1)[0]} does not" in up.said
    assert "DATABASE_URL" in up.said
    assert "secret" not in up.said
    up.until_gone()
