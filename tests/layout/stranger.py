"""A stranger's terminal: a fresh clone, the environment of somebody who has set nothing, and what `up` started."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import httpx

from service.dev.ports import free_port
from service.settings import Settings
from tests.layout.repository import ROOT

START_SECONDS = 300  # the first start makes an environment; a slow network is not a fault
OWN = {"VIRTUAL_ENV", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTEST_CURRENT_TEST", "PYTEST_ADDOPTS"}
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


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


def cloned(folder: Path) -> Path:
    """The committed tree, as a stranger gets it."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True, timeout=120)
    return folder


@contextmanager
def started(clone: Path, command: str) -> Iterator[Running]:
    """`up` on a free port, ready; ended afterwards."""
    port, output = free_port(), clone.parent / "up.log"
    arguments = [*shlex.split(command), "--port", str(port)]
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
        running.until(lambda: "Send a mail:" in running.log or None, "the greeting")
        yield running
    finally:
        if process.poll() is None:
            try:
                running.interrupt()
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def mails(running: Running) -> list[dict[str, Any]]:
    """What the mailbox holds."""
    return httpx.get(f"{running.about['mailbox']}/api/v1/messages", timeout=10).json()["messages"]
