"""A stranger's first minutes: the README's own commands, run in a fresh clone."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.dev.ports import is_free
from tests.layout.stranger import Running, blocks, cloned, command, mails, run, started

pytestmark = pytest.mark.timeout(600)

# what bash makes of a curl line, so that the test needs no curl
ARGUMENTS_OF_CURL = 'curl() { printf "%s\\0" "$@"; }\n'


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed tree, as a stranger gets it."""
    return cloned(tmp_path_factory.mktemp("stranger") / "callboard")


@pytest.fixture(scope="module")
def up(clone: Path) -> Iterator[Running]:
    """`up` of the README on a free port, ready."""
    with started(clone, command("python3 start up")) as running:
        yield running


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


def test_up_tells_where_everything_is(up: Running) -> None:
    assert f"http://127.0.0.1:{up.port}" in up.log
    assert up.about["mailbox"] in up.log
    [shown] = [block for block in blocks("text") if "Ctrl-C" in block]
    names = re.findall(r"^  (\S+(?: \S+)?)  ", shown, re.MULTILINE)
    assert len(names) == 6
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


def test_the_load_of_apps_leaves_nothing_behind_and_every_reader_is_told(up: Running) -> None:
    line = re.sub(r"-t \d+s", "-t 5s", command("python3 start run locust", "docs/operations.md"))
    ended = run(up.clone, line)
    assert ended.stdout.count("not settled: 0") == 3, ended.stdout  # mails, jobs, notifications
    assert re.search(r"emails accepted and remembered: [1-9]", ended.stdout), ended.stdout
    assert re.search(r"reader told of [1-9]\d* of .*; missing: 0; twice: 0", ended.stdout), ended.stdout


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
