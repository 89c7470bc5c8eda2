"""Worker processes for tests: started, watched through their journal, always ended."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import Celery

ROOT = Path(__file__).parents[2]
NUMBERS = itertools.count()
OURS, STOCK = {"own_consumer": True}, {"own_consumer": False}


def client(url: str, **conf: Any) -> Celery:
    """A stock Celery client: an app with no code of ours, with connections of its own.

    Kombu keeps one pool of connections for each set of options, process-wide: without a name of its own a client would
    be given one that an earlier test's restart of the server has closed.
    """
    app = Celery("client", broker=url, **conf)
    app.conf.broker_transport_options = {"priority_steps": [0, 3, 6, 9], "client_name": f"test-{next(NUMBERS)}"}
    return app


def inspect(app: Celery, worker: Worker, timeout: float = 30.0) -> Any:
    """Remote control of one worker, answered as soon as it answers."""
    return app.control.inspect([worker.node], timeout=timeout, limit=1)


def eventually(condition: Callable[[], Any], what: str, timeout: float = 60.0) -> Any:
    """Waits until the condition holds, and returns what it returned."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"after {timeout} s still not: {what}")


class Worker:
    """One `celery worker` process over `tests.wire.demo`."""

    def __init__(
        self, url: str, folder: Path, *arguments: str, name: str = "w1", app: str = "tests.wire.demo", **env: Any
    ):
        self.node = f"{name}@test"
        self.journal = folder / "journal"
        self.log = folder / f"{name}.log"
        options = json.dumps({"grace": 10, "farewell": 2, "lease": 1.0, **env.pop("options", OURS)})
        self.env = {**os.environ, "REDIS_URL": url, "JOURNAL": str(self.journal), "WORKER_OPTIONS": options}
        self.env |= {name: str(value) for name, value in env.items()}
        self.env.pop("PYTHONDONTWRITEBYTECODE", None)
        self.command = [sys.executable, "-m", "celery", "-A", app, "worker", "-n", self.node, "-l", "INFO"]
        self.command += ["--without-mingle", "--without-gossip", *arguments]
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Worker:
        return self if self.process is not None else self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self, *, until_ready: bool = True) -> Worker:
        """Starts the process and waits until it says that it is ready."""
        offset = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(self.command, cwd=ROOT, env=self.env, stdout=output, stderr=output)
        if not until_ready:
            return self
        try:
            eventually(
                lambda: "ready." in self.log.read_text()[offset:] or self.process.poll() is not None, "ready", 60
            )
            assert self.process.poll() is None, self.log.read_text()
        except AssertionError:
            self.kill()
            raise
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def stop(self, timeout: float = 60.0) -> int:
        """SIGTERM, and the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def notes(self) -> Counter[str]:
        """How often each `event tag` was noted, whoever noted it."""
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        return Counter(line.rpartition(" ")[0] for line in lines)

    def wait_for(self, *notes: str, timeout: float = 60.0) -> None:
        """Waits until the journal has all of these."""
        missing = f"{notes} in the journal; {self.log}"
        eventually(lambda: all(self.notes()[note] for note in notes), missing, timeout)
