"""A stranger's first minutes: the README's own commands, run in a fresh clone."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.dev.ports import free_port, is_free
from service.settings import Settings
from tests.layout.repository import ROOT

pytestmark = pytest.mark.timeout(600)

START_SECONDS = 300  # the first start makes an environment; a slow network is not a fault
OWN = {"VIRTUAL_ENV", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTEST_CURRENT_TEST", "PYTEST_ADDOPTS"}
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# what bash makes of a curl line, so that the test needs no curl
ARGUMENTS_OF_CURL = 'curl() { printf "%s\\0" "$@"; }\n'


def blocks(language: str, page: str = "README.md") -> list[str]:
    """The fenced blocks of a page in one language."""
    return [text for found, text in FENCE.findall((ROOT / page).read_text(encoding="utf-8")) if found == language]


def command(beginning: str, page: str = "README.md") -> str:
    """The one command of a page that begins so, continued lines joined, without its comment."""
    lines = [
        line for block in blocks("sh", page) for line in re.split(r"(?<!\\)\n", block) if line.startswith(beginning)
    ]
    assert len(lines) == 1, f"{page} has {len(lines)} commands that begin with {beginning!r}"
    return re.sub(r"\s+#.*$", "", lines[0])


def environment() -> dict[str, str]:
    """The environment of somebody who has set nothing; not ours, whose Python comes first and has no pip."""
    settings = {name for item in fields(Settings) for name in item.metadata["names"]}
    path = [folder for folder in os.environ["PATH"].split(os.pathsep) if Path(folder) != Path(sys.prefix, "bin")]
    kept = {name: value for name, value in os.environ.items() if name not in settings | OWN}
    return {**kept, "PATH": os.pathsep.join(path)} if sys.prefix != sys.base_prefix else kept


def run(clone: Path, line: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Run one command of the README in the clone, with `more` arguments, and expect it to end well."""
    ended = subprocess.run(
        [*shlex.split(line), *more],
        cwd=clone,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, (
        f"{line} ended with {ended.returncode}\n{ended.stdout[-4000:]}\n{ended.stderr[-4000:]}"
    )
    return ended


@dataclass
class Running:
    """What `up` started."""

    process: subprocess.Popen[bytes]
    clone: Path
    output: Path
    port: int
    about: dict[str, Any]

    @property
    def log(self) -> str:
        """What it printed."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    def until(self, ask: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
        """The first answer that is not None; fails with what `up` printed."""
        deadline = time.monotonic() + seconds
        while (answer := ask()) is None:
            assert self.process.poll() is None, f"up ended with {self.process.returncode}\n{self.log[-4000:]}"
            assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s\n{self.log[-4000:]}"
            time.sleep(0.1)
        return answer

    def interrupt(self) -> int:
        """Press Ctrl-C, which reaches the whole process group, and wait for the end."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(60)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed tree, as a stranger gets it."""
    folder = tmp_path_factory.mktemp("stranger") / "callboard"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True, timeout=120)
    return folder


@pytest.fixture(scope="module")
def up(clone: Path) -> Iterator[Running]:
    """`up` of the README on a free port, ready."""
    port, output = free_port(), clone.parent / "up.log"
    arguments = [*shlex.split(command("python3 start up")), "--port", str(port)]
    with output.open("wb") as file:
        process = subprocess.Popen(
            arguments,
            cwd=clone,
            env=environment(),
            stdout=file,
            stderr=file,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    running = Running(process, clone, output, port, {})
    try:
        about = clone / ".callboard" / "up.json"
        running.until(lambda: about.exists() or None, "up.json", START_SECONDS)
        running.about = json.loads(about.read_text(encoding="utf-8"))
        yield running
    finally:
        if process.poll() is None:
            try:
                running.interrupt()
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def curl(running: Running, line: str) -> httpx.Response:
    """Do what a curl line of the README says, with the port that this test uses."""
    script = ARGUMENTS_OF_CURL + line.replace(":8000/", f":{running.port}/")
    spoken = subprocess.run(["bash", "-c", script], cwd=running.clone, capture_output=True, check=True).stdout.decode()
    arguments = spoken.split("\0")[:-1]
    options = {"-H": [], "-d": []}
    urls = []
    while arguments:
        argument = arguments.pop(0)
        if argument in options:
            options[argument].append(arguments.pop(0))
        elif not argument.startswith("-"):
            urls.append(argument)
        else:
            assert argument in {"-s", "-i"}, f"the README uses {argument}, which this test cannot read"
    headers = [tuple(header.split(": ", 1)) for header in options["-H"]]
    body = "".join(options["-d"])
    return httpx.request("POST" if body else "GET", urls[0], headers=headers, content=body or None, timeout=30)


def mails(running: Running) -> list[dict[str, Any]]:
    """What the mailbox holds."""
    return httpx.get(f"{running.about['mailbox']}/api/v1/messages", timeout=10).json()["messages"]


def test_up_tells_where_everything_is(up: Running) -> None:
    assert f"http://127.0.0.1:{up.port}" in up.log
    assert up.about["mailbox"] in up.log
    [shown] = [block for block in blocks("text") if "Ctrl-C" in block]
    names = re.findall(r"^  (\S+(?: \S+)?)  ", shown, re.MULTILINE)
    assert len(names) == 5
    assert [name for name in names if f"  {name} " not in up.log] == []
    ready = httpx.get(f"http://127.0.0.1:{up.port}/health/ready", timeout=10)
    assert ready.status_code == 200, ready.text


def test_the_curl_line_sends_one_mail_however_often_it_is_run(up: Running) -> None:
    line = command("curl")
    first, again = curl(up, line), curl(up, line)
    assert first.status_code == 202, first.text
    assert again.json()["id"] == first.json()["id"]
    assert again.headers["Idempotency-Replayed"] == "true"
    up.until(lambda: mails(up) or None, "the mail in the mailbox")
    key = {"Authorization": f"Bearer {(up.clone / '.callboard' / 'key').read_text().strip()}"}
    url = f"http://127.0.0.1:{up.port}/v1/emails/{first.json()['id']}"
    up.until(lambda: httpx.get(url, headers=key).json()["status"] == "sent" or None, "the status `sent`")
    [mail] = [mail for mail in mails(up) if mail["To"][0]["Address"] == "ada@example.com"]
    assert "Ada" in mail["Subject"]


def test_status_trace_and_doctor_tell_what_happened(up: Running) -> None:
    assert run(up.clone, command("python3 start status")).stdout
    request_id = curl(up, command("curl").replace("welcome-ada", "another")).headers["X-Request-ID"]
    trace = command("python3 start trace").replace("REQUEST_ID", request_id)
    up.until(lambda: "email" in run(up.clone, trace).stdout or None, "the story of the request")
    assert "SMTP" in run(up.clone, command("python3 start doctor")).stdout


def test_the_load_of_an_app_leaves_no_mail_behind(up: Running) -> None:
    line = re.sub(r"-t \d+s", "-t 3s", command("python3 start run locust", "docs/operations.md"))
    ended = run(up.clone, line)
    assert "not settled: 0" in ended.stdout, ended.stdout


def test_ctrl_c_stops_everything_that_up_started(up: Running) -> None:
    """The last one with `up`: afterwards nothing listens and nothing runs."""
    assert up.interrupt() in {0, 130}, up.log
    assert is_free(up.port)
    assert not (up.clone / ".callboard" / "up.json").exists()
    with pytest.raises(httpx.TransportError):
        httpx.get(up.about["mailbox"], timeout=2)


def test_the_test_command_runs_the_tests(clone: Path) -> None:
    """One file of the suite: the whole suite would run this test again."""
    ended = run(clone, command("python3 start test"), "tests/layout/test_names.py")
    assert re.search(r"\d+ passed", ended.stdout), ended.stdout


def test_the_chaos_command_knows_its_options(clone: Path) -> None:
    """tests/faults runs what it does."""
    assert "Usage: callboard chaos" in run(clone, command("python3 start chaos"), "--help").stdout
