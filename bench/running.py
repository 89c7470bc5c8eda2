"""A measured process: started on its core, watched through its counters, stopped."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from bench import machine
from bench.contestants import Contestant
from bench.machine import Cores
from bench.venvs import PEERS, cache, python_of

ROOT = Path(__file__).parents[1]
START = 40.0
"""Seconds a worker may take to run its first task."""
STOP = 5.0
"""Seconds a worker may take to stop before it is killed."""


class Broken(RuntimeError):
    """A contestant did not do what it should; the message ends with its last words."""


class Folder:
    """Where the processes of one measurement leave their counts."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def count(self) -> int:
        """Tasks run so far, by all processes together."""
        total = 0
        for file in self.path.glob("*.count"):
            with suppress(OSError, struct.error):
                total += int(struct.unpack("<Q", file.read_bytes())[0])
        return total

    def latencies(self) -> list[float]:
        """Seconds from sent to started, of every task that was started."""
        return [float(line) for file in self.path.glob("*.latency") for line in file.read_text().split()]

    def forget_latencies(self) -> None:
        """Forget those of the tasks that waited for the worker to start."""
        for file in self.path.glob("*.latency"):
            os.truncate(file, 0)


@contextmanager
def folder() -> Iterator[Folder]:
    """A fresh one."""
    with tempfile.TemporaryDirectory(prefix="run-", dir=cache(), ignore_cleanup_errors=True) as path:
        yield Folder(Path(path))


def environment(contestant: Contestant, where: Folder, more: Mapping[str, str]) -> dict[str, str]:
    """What a contestant's process is told."""
    kept = {name: value for name, value in os.environ.items() if name not in {"PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV"}}
    paths = {"PYTHONPATH": f"{PEERS}{os.pathsep}{ROOT}" if contestant.venv is None else str(PEERS)}
    return kept | paths | {"BENCH_FOLDER": str(where.path)} | dict(contestant.env) | dict(more)


def command(contestant: Contestant, parts: tuple[str, ...], slots: int) -> list[str]:
    """A command line of a contestant, filled in."""
    python = python_of(contestant.venv)
    values = {"python": python, "bin": str(Path(python).parent), "slots": str(slots)}
    return [part.format(**values) for part in parts]


def client(
    contestant: Contestant, where: Folder, more: Mapping[str, str], *args: str, cores: Cores | None = None
) -> dict[str, float]:
    """Run a contestant's client to its end, on the measured core if `cores` are given; what it printed."""
    done = subprocess.run(
        command(contestant, contestant.client, 1) + list(args),
        env=environment(contestant, where, more),
        cwd=ROOT if contestant.venv is None else PEERS,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        preexec_fn=None if cores is None else cores.give,
    )
    if done.returncode != 0:
        raise Broken(f"{contestant.name}: client {' '.join(args)} failed: {done.stderr.strip()[-800:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


@contextmanager
def worker(
    contestant: Contestant, where: Folder, more: Mapping[str, str], slots: int, cores: Cores
) -> Iterator[subprocess.Popen[bytes]]:
    """A contestant's worker on the measured core."""
    log = where.path / "worker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(contestant, contestant.worker, slots),
            env=environment(contestant, where, {**more, "BENCH_SLOTS": str(slots)}),
            cwd=ROOT if contestant.venv is None else PEERS,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=cores.give,  # noqa: PLW1509 - this program has one thread
            start_new_session=True,
        )
    try:
        yield process
    except Broken as error:
        raise Broken(f"{error}; its log ends: {log.read_text(errors='replace').strip()[-800:]}") from error
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and everything it started."""
    pids = machine.tree(process.pid)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def wait_for(
    condition: Callable[[], bool], process: subprocess.Popen[bytes], what: str, timeout: float = START
) -> None:
    """Return when the condition holds. Raises Broken when it does not in time, or the process ends."""
    deadline = time.monotonic() + timeout
    while not condition():
        if process.poll() is not None:
            raise Broken(f"it ended with {process.returncode} before {what}")
        if time.monotonic() > deadline:
            raise Broken(f"no {what} within {timeout:.0f} s")
        time.sleep(0.01)
