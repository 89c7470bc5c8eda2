"""`accept`: POST /v1/emails on one process with 64 connections, beside what the usual designs do."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx

from bench import load, machine, running
from bench.options import Options
from bench.progress import say
from bench.report import Column, Figures, Report, Target
from bench.servers import Servers
from service.access import keys
from service.db import engine as db
from service.dev.ports import free_port
from service.settings import Settings

OURS = "callboard"
BARE = "bare ASGI"
VALIDATED = "Litestar, validation only"
ORM = "ORM session + commit"
DELAY = "ORM + commit + Celery .delay()"
DOORS = {BARE: "bare", VALIDATED: "validated", OURS: "", ORM: "orm", DELAY: "delay"}
COLUMNS = (
    Column("rate", "requests/s"),
    Column("p50", "p50 ms", ",.1f"),
    Column("p99", "p99 ms", ",.1f"),
    Column("cpu", "CPU µs/request"),
)
PATH = "/v1/emails"
START = 30.0
MAIL_FROM = "Bench <bench@example.org>"


def run(options: Options, servers: Servers) -> list[Report]:
    """Each door in turn, every round."""
    title = "POST /v1/emails, 1 kB, one granian process, 64 connections"
    report = Report("accept", title, COLUMNS, OURS, "rate")
    words = [word.strip().lower() for word in options.only.split(",") if word.strip()]
    with servers.database() as database:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {asyncio.run(new_key(database))}"}
        for number in range(options.rounds):
            for name, door in DOORS.items():
                if words and not any(word in name.lower() for word in words):
                    continue
                say(f"accept, round {number + 1}/{options.rounds}: {name}")
                try:
                    report.add(name, measure(door, headers, options, servers, database))
                except (running.Broken, load.Refused, RuntimeError, OSError) as error:
                    report.fail(name, str(error))
    report.targets = [
        Target(OURS, "rate", (DELAY,), least=10, text="requests/s"),
        Target(OURS, "rate", (VALIDATED,), least=0.6, text="requests/s"),
        Target(OURS, "p99", (VALIDATED,), most=1.5, less_is_better=True, text="p99"),
    ]
    report.notes = [
        f"load by {load.tool()}; ours is `callboard api` as it is served: authenticated, idempotent, committed with "
        "fsync, rung for, logged, counted",
    ]
    return [report]


def measure(door: str, headers: dict[str, str], options: Options, servers: Servers, database: str) -> Figures:
    """Warm up, then load for some seconds."""
    servers.clean()
    with serving(door, options, servers, database) as (process, port):
        load.measure(port, PATH, headers, load.mail(), 1)
        pids = machine.tree(process.pid)
        cpu = machine.cpu_seconds(pids)
        figures = load.measure(port, PATH, headers, load.mail(), options.seconds * 2)
        figures["cpu"] = (machine.cpu_seconds(pids) - cpu) / figures.pop("count") * 1e6
    return figures


@contextmanager
def serving(
    door: str, options: Options, servers: Servers, database: str, processes: int = 1
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server on the measured core, ready; `processes` of ours."""
    port = free_port()
    command = [sys.executable, "-m", *(granian(port) if door else ours(port, processes))]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env |= {"DATABASE_URL": database, "REDIS_URL": servers.redis_url, "SECRET_KEY": "of a benchmark only"}
    env |= {"LOG_FORMAT": "json", "MAIL_FROM": MAIL_FROM, "BENCH_DOOR": door}
    with running.folder() as where:
        log = where.path / "server.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                env=env,
                cwd=running.ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=options.cores.give,  # noqa: PLW1509 - this program has one thread
            )
        try:
            running.wait_for(lambda: answers(port), process, "an answer", START)
            yield process, port
        except running.Broken as error:
            raise running.Broken(f"{error}; its log ends: {log.read_text(errors='replace')[-800:]}") from error
        finally:
            process.send_signal(signal.SIGTERM)
            running.stop(process)


def ours(port: int, processes: int) -> list[str]:
    """The API as anybody starts it."""
    return ["service", "api", "--host", "127.0.0.1", "--port", str(port), "--processes", str(processes)]


def granian(port: int) -> list[str]:
    """A door of bench.doors, served as ours is."""
    options = ["--interface", "asgi", "--loop", "uvloop", "--no-access-log", "--log-level", "critical"]
    return ["granian", *options, "--port", str(port), "--factory", "bench.doors:make"]


def answers(port: int) -> bool:
    """Whether anything is answered there."""
    with suppress(httpx.HTTPError):
        httpx.get(f"http://127.0.0.1:{port}/health/ready", timeout=2)
        return True
    time.sleep(0.05)
    return False


async def new_key(database: str) -> str:
    """A live key of a tenant of its own."""
    engine = db.create_engine(Settings.from_env({"DATABASE_URL": database}))
    async with db.transaction(db.sessions(engine)) as session:
        _, text = await keys.create(session, "bench", ["*"])
    await engine.dispose()
    return text
