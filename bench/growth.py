"""`growth`: more processes, longer queues. Nothing is pinned, so load and servers share the cores."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from bench import accept, load, running
from bench.contestants import CONTESTANTS, DURABLE, OURS, Contestant
from bench.machine import Cores
from bench.options import Options
from bench.progress import say
from bench.report import Column, Figures, Report
from bench.servers import Servers

PROCESSES = (1, 2, 4)
API_PROCESSES = (1, 2)
BACKLOGS = (1_000, 10_000, 100_000, 1_000_000)
QUICK_BACKLOGS = (1_000, 10_000)
FILLED_AT_ONCE = 50_000
ANYWHERE = Cores(None, None)
WORKERS = (Column("noop", "no-op/s"), Column("durable", "durable/s"), Column("wait", "100 ms waits/s"))
QUEUED = (Column("rate", "tasks/s"), Column("memory", "Redis bytes/task"))
API = (Column("rate", "requests/s"), Column("p50", "p50 ms", ",.1f"), Column("p99", "p99 ms", ",.1f"))


def run(options: Options, servers: Servers) -> list[Report]:
    """Worker processes, then backlogs, then API processes."""
    return [workers(options, servers), backlogs(options, servers), apis(options, servers)]


def workers(options: Options, servers: Servers) -> Report:
    """The same backlogs with one, two and four worker processes."""
    report = Report("growth-workers", "Worker processes", WORKERS, _processes(1), "noop")
    kinds = {"noop": (OURS, "noop"), "durable": (DURABLE, "noop"), "wait": (OURS, "wait")}
    for number in range(options.rounds):
        for count in PROCESSES:
            say(f"growth, round {number + 1}/{options.rounds}: {_processes(count)}")
            figures: Figures = {}
            try:
                for key, (name, task) in kinds.items():
                    figures[key] = drain(named(name), task, count, options, servers)
                report.add(_processes(count), figures)
            except (running.Broken, RuntimeError, OSError) as error:
                report.fail(_processes(count), str(error))
    return report


def backlogs(options: Options, servers: Servers) -> Report:
    """One worker with a thousand and with a million no-op tasks queued."""
    sizes = QUICK_BACKLOGS if options.quick else BACKLOGS
    report = Report("growth-queued", "Tasks queued in Redis", QUEUED, f"{sizes[0]:,} queued", "rate")
    for number in range(options.rounds):
        for size in sizes:
            say(f"growth, round {number + 1}/{options.rounds}: {size:,} queued")
            try:
                report.add(f"{size:,} queued", drain_some(size, options, servers))
            except (running.Broken, RuntimeError, OSError) as error:
                report.fail(f"{size:,} queued", str(error))
    return report


def apis(options: Options, servers: Servers) -> Report:
    """POST /v1/emails on one API process and on two."""
    report = Report("growth-api", "API processes, POST /v1/emails", API, _processes(1), "rate")
    with servers.database() as database:
        headers = {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {asyncio.run(accept.new_key(database))}",
        }
        for number in range(options.rounds):
            for count in API_PROCESSES:
                say(f"growth, round {number + 1}/{options.rounds}: API, {_processes(count)}")
                servers.clean()
                try:
                    with accept.serving("", replace(options, cores=ANYWHERE), servers, database, count) as (_, port):
                        load.measure(port, accept.PATH, headers, load.mail(), 1)
                        figures = load.measure(port, accept.PATH, headers, load.mail(), options.seconds * 2)
                        report.add(_processes(count), figures)
                except (running.Broken, load.Refused, RuntimeError, OSError) as error:
                    report.fail(_processes(count), str(error))
    return report


def drain(contestant: Contestant, task: str, processes: int, options: Options, servers: Servers) -> float:
    """Tasks a second while so many processes drain one backlog."""
    backlog = int(contestant.rates[task] * options.seconds * 1.5 * processes + 2 * contestant.slots[task])
    with _ready(contestant, task, backlog, processes, servers) as where:
        return _rate(where, min(backlog // 10, 2_000), backlog - backlog // 20, options.seconds)


def drain_some(size: int, options: Options, servers: Servers) -> Figures:
    """Tasks a second with so many queued, until some seconds have passed or nearly all have run."""
    contestant = named(OURS)
    servers.clean()
    before = servers.redis.info("memory")["used_memory"]
    with running.folder() as where:
        _fill(contestant, where, "noop", size, {"REDIS_URL": servers.redis_url})
        each = (servers.redis.info("memory")["used_memory"] - before) / size
    with _ready(contestant, "noop", 0, 1, servers, clean=False) as where:
        return {
            "rate": _rate(where, size // 10 if size < 20_000 else 2_000, size - size // 20, options.seconds),
            "memory": each,
        }


@contextmanager
def _ready(
    contestant: Contestant, task: str, backlog: int, processes: int, servers: Servers, *, clean: bool = True
) -> Iterator[running.Folder]:
    """A backlog, and so many workers that begin to drain it."""
    if clean:
        servers.clean()
    with ExitStack() as stack:
        where = stack.enter_context(running.folder())
        more = {"REDIS_URL": servers.redis_url}
        if contestant.database:
            more["DATABASE_URL"] = stack.enter_context(servers.database())
        if backlog:
            _fill(contestant, where, task, backlog, more)
        for number in range(processes):
            one = replace(contestant, worker=(*contestant.worker, "-n", f"w{number}@bench"))
            stack.enter_context(running.worker(one, where, more, contestant.slots[task], ANYWHERE))
        yield where


def _fill(contestant: Contestant, where: running.Folder, task: str, backlog: int, more: dict[str, str]) -> None:
    for start in range(0, backlog, FILLED_AT_ONCE):
        running.client(contestant, where, more, "fill", task, str(min(FILLED_AT_ONCE, backlog - start)))


def _rate(where: running.Folder, first: int, last: int, seconds: float) -> float:
    """Tasks a second from the first count to the last, or until so many seconds have passed."""
    deadline = time.monotonic() + running.START
    while where.count() < first:
        if time.monotonic() > deadline:
            raise running.Broken(f"only {where.count()} tasks within {running.START:.0f} s")
        time.sleep(0.01)
    began, done = time.monotonic(), where.count()
    while where.count() < last and time.monotonic() - began < seconds:
        time.sleep(0.02)
    return (where.count() - done) / (time.monotonic() - began)


def named(name: str) -> Contestant:
    """A contestant by its name."""
    return next(one for one in CONTESTANTS if one.name == name)


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"
