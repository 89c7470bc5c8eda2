"""The tutorial, from its first line to its last, in a stranger's terminal."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.layout.stranger import Running, blocks, cloned, command, environment, mails, started

pytestmark = pytest.mark.timeout(600)

PAGE = "docs/tutorial.md"
CURL = '''#!/usr/bin/env python3
"""curl's -s, -X, -H and -d, for machines without it; ends with 22 where the answer is 400 or above."""
import sys, urllib.error, urllib.request
method, headers, body, url, words = None, {}, None, "", sys.argv[1:]
while words:
    word = words.pop(0)
    if word == "-X": method = words.pop(0)
    elif word == "-H": name, _, value = words.pop(0).partition(": "); headers[name] = value
    elif word == "-d": body = words.pop(0).encode()
    elif word != "-s": url = word
request = urllib.request.Request(url, body, headers, method=method)
try:
    with urllib.request.urlopen(request, timeout=60) as answer: print(answer.read().decode())
except urllib.error.HTTPError as error: sys.exit(f"{error.code} {error.read().decode()}")
'''
MARK = "--- block {} ---"


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, list[str]]]:
    """What each block of the page printed, all of them run by one shell."""
    folder = tmp_path_factory.mktemp("tutorial")
    clone = cloned(folder / "callboard")
    (folder / "bin").mkdir()
    (folder / "bin" / "curl").write_text(CURL, encoding="utf-8")
    (folder / "bin" / "curl").chmod(0o755)
    with started(clone, command("python3 start up")) as running:
        yield running, spoken(running, folder / "bin")


def spoken(running: Running, tools: Path) -> list[str]:
    """Run the page's blocks one after the other, with the port and the Python of this test."""
    lines = ["set -euo pipefail"]
    for number, block in enumerate(blocks("sh", PAGE)):
        script = block.replace(":8000", f":{running.port}")
        script = script.replace("chaos --mails 200", "chaos --help")  # tests/faults runs what it does
        lines += [f"echo '{MARK.format(number)}'", script]
    env = environment()
    env["PATH"] = f"{tools}:{env['PATH']}"
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        cwd=running.clone,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return re.split(r"--- block \d+ ---\n", done.stdout)[1:]


def test_every_command_does_what_the_page_says(told: tuple[Running, list[str]]) -> None:
    running, (_, mail, story, later, notified, feed, job, quota, chaos, made) = told
    assert json.loads(mail)["status"] == "queued"
    assert "first-mail" in story
    assert later.split() == ["scheduled", "canceled"]
    counts = json.loads(notified.strip().splitlines()[-1])["counts"]
    assert (counts["resolved"], counts["overlapping"]) == (2, 1)
    assert [item["data"]["title"] for item in json.loads(feed)["items"]] == ["A new prompt: Explain it simply"]
    done = json.loads(job.strip().splitlines()[-1])
    assert (done["status"], done["result"]["provider"]) == ("completed", "offline")
    assert json.loads(quota)["used"] == 1
    assert "Usage: callboard chaos" in chaos
    assert "service/orders" in made
    expected = {"ada@example.com", "grace@example.com", "alan@example.com"}
    running.until(lambda: {mail["To"][0]["Address"] for mail in mails(running)} >= expected or None, "the mails")
