"""`python -m bench.soak [--minutes 60] [--rate 40]`: mails at a steady rate for an hour; does anything grow?

What has ended is forgotten after five minutes, so that the hour shows many rounds of it. Once a minute: rows and bytes
of the tables, memory of the API, the worker and Redis, and how long the oldest mail waits. The verdict compares the
second third of the run with the last: whatever grows all the time has grown between them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from bench import accept, load, machine, running
from bench.mails import mail_server
from bench.progress import hush, say
from bench.servers import Servers, servers
from service.dev.ports import free_port

Look = Callable[[], Awaitable[dict[str, float]]]

KEPT = 300.0
FIGURES = {"messages": "rows", "emails": "rows", "answers": "rows", "database": "MiB", "api": "MiB", "worker": "MiB",
           "redis": "MiB", "oldest": "s", "sent": "mails"}  # fmt: skip
LOOK = """
SELECT (SELECT count(*) FROM messages) AS messages, (SELECT count(*) FROM emails) AS emails,
    (SELECT count(*) FROM idempotency_keys) AS answers, pg_database_size(current_database()) / 1048576.0 AS database,
    (SELECT coalesce(extract(epoch FROM clock_timestamp() - min(due_at)), 0)
        FROM messages WHERE state = 'queued') AS oldest
"""
BOUNDED = {"messages": 1.3, "emails": 1.3, "answers": 1.3, "database": 1.3, "api": 1.1, "worker": 1.1, "redis": 1.2}
"""By how much the last third may pass the second: vacuum and garbage collection come when they come, growth always."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=40, help="mails a second (default: 40)")
    parser.add_argument("--json", type=Path, help="store every minute's figures in this file")
    return parser.parse_args()


def main() -> int:
    """Run, print a row for each minute and the verdict; 1 when something grew."""
    asked = arguments()
    with servers() as running_servers:
        rows = soak(running_servers, asked.minutes, asked.rate)
    hush()
    if asked.json is not None:
        asked.json.write_text(json.dumps(rows, indent=1))
    return verdict(rows)


def soak(servers: Servers, minutes: float, rate: float) -> list[dict[str, float]]:
    """The figures of every minute."""
    with ExitStack() as stack:
        database = stack.enter_context(servers.database())
        sink = stack.enter_context(running.folder())
        smtp = stack.enter_context(mail_server(sink))
        api = free_port()
        env = environment(database, servers.redis_url, smtp)
        processes = {
            "api": stack.enter_context(_process(env, sink.path / "api.log", "service", "api", "--port", str(api))),
            "worker": stack.enter_context(_process(env, sink.path / "worker.log", "service", "worker")),
        }
        running.wait_for(lambda: accept.answers(api), processes["api"], "an answer")
        key = asyncio.run(accept.new_key(database))
        print("minute  " + "".join(f"{f'{name} ({unit})':>17}" for name, unit in FIGURES.items()), flush=True)
        posting = _post(api, key, rate, minutes * 60)
        return asyncio.run(_watch(posting, lambda: _look(database, servers, processes, sink)))


def environment(database: str, redis_url: str, smtp: int) -> dict[str, str]:
    """What the API and the worker are told."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    kept |= {"DATABASE_URL": database, "REDIS_URL": redis_url, "SECRET_KEY": "of a benchmark only"}
    kept |= {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(smtp), "SMTP_TLS": "none", "MAIL_FROM": accept.MAIL_FROM}
    kept |= {"RETENTION": str(KEPT), "RECORD_RETENTION": str(KEPT), "IDEMPOTENCY_TTL": str(int(KEPT))}
    return kept | {"LOG_FORMAT": "json", "LOG_LEVEL": "WARNING"}


async def _watch(load: Coroutine[Any, Any, None], look: Look) -> list[dict[str, float]]:
    """A row of figures for each minute until the load ends."""
    rows: list[dict[str, float]] = []
    posting, began = asyncio.create_task(load), time.monotonic()
    while not posting.done():
        await asyncio.wait([posting], timeout=began + 60 * (len(rows) + 1) - time.monotonic())
        found = await look()
        rows.append(found)
        hush()
        print(f"{len(rows):6}  " + "".join(f"{found[name]:17,.1f}" for name in FIGURES), flush=True)
    await posting
    return rows


async def _look(
    database: str, servers: Servers, processes: dict[str, subprocess.Popen[bytes]], sink: running.Folder
) -> dict[str, float]:
    connection = await asyncpg.connect(database)
    try:
        found = {name: float(value) for name, value in dict(await connection.fetchrow(LOOK)).items()}
    finally:
        await connection.close()
    for name, process in processes.items():
        found[name] = machine.memory(machine.tree(process.pid)) / 2**20
    found["redis"] = servers.redis.info("memory")["used_memory"] / 2**20
    found["sent"] = float(sink.count())
    return found


async def _post(api: int, key: str, rate: float, seconds: float) -> None:
    """One mail after another at this rate; a few at once where the API is slower than that."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    room, number, begun = asyncio.Semaphore(20), 0, time.monotonic()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{api}", headers=headers, timeout=30) as client:

        async def one(number: int) -> None:
            async with room:
                answer = await client.post(
                    accept.PATH, content=load.mail(), headers={"Idempotency-Key": f"soak-{number}"}
                )
                answer.raise_for_status()

        async with asyncio.TaskGroup() as group:
            while time.monotonic() < begun + seconds:
                number += 1
                group.create_task(one(number))
                await asyncio.sleep(max(0.0, begun + number / rate - time.monotonic()))
                if number % 100 == 0:
                    say(f"{number:,} mails posted")


def verdict(rows: list[dict[str, float]]) -> int:
    """Say for each figure by how much the last third passes the second."""
    third, failed = len(rows) // 3, 0
    if not third:
        print("too short for a verdict: give it at least three minutes")
        return 0
    for name, bound in BOUNDED.items():
        middle = statistics.median(row[name] for row in rows[third : 2 * third])
        last = statistics.median(row[name] for row in rows[2 * third :])
        ratio = last / middle if middle else 1.0
        failed |= ratio > bound
        mark, change = "✗" if ratio > bound else "✓", f"{middle:,.1f} → {last:,.1f} {FIGURES[name]}"
        print(f"{mark} {name}: {change} ({ratio:.2f} ×, at most {bound} ×)")
    return int(failed)


@contextmanager
def _process(env: dict[str, str], log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        started = subprocess.Popen(
            [sys.executable, "-m", *command], env=env, cwd=running.ROOT, stdin=subprocess.DEVNULL, stdout=output,
            stderr=output,
        )  # fmt: skip
    try:
        yield started
    finally:
        started.send_signal(signal.SIGTERM)
        running.stop(started)


if __name__ == "__main__":
    raise SystemExit(main())
