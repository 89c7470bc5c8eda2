"""`worker`: how fast a worker drains a backlog, what a task costs it, and how often it talks to Redis."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

from bench import machine, running
from bench.contestants import BATCHED, DURABLE, OURS, PEERS, Contestant, chosen
from bench.options import Options
from bench.progress import say
from bench.report import Column, Figures, Report, Target
from bench.servers import Servers

COLUMNS = (
    Column("rate", "tasks/s"),
    Column("cpu", "CPU µs/task"),
    Column("busy", "of a core", ".0%"),
    Column("commands", "Redis commands/task", ".1f"),
)
SETTLE = 0.1
"""Share of the backlog that runs before the clock starts: start-up is not measured here."""


@dataclass(frozen=True)
class Drain:
    """One kind of backlog."""

    task: str
    title: str
    celery: float
    """Our target against stock Celery."""
    env: Mapping[str, str] = field(default_factory=dict)
    """For the worker alone."""


DRAINS = (
    Drain("noop", "A worker draining no-op tasks (results off, one process, one core)", 15),
    Drain(
        "kept",
        "A worker draining no-op tasks whose results are stored in Redis",
        8,
        {"BENCH_RESULTS": "1"},
    ),
    Drain("wait", "A worker draining tasks that wait 100 ms (as many in flight as each is good with)", 10),
)


def run(options: Options, servers: Servers) -> list[Report]:
    """Every contestant, every kind of backlog, in turn."""
    reports = []
    for drain in DRAINS:
        report = Report(f"worker-{drain.task}", drain.title, COLUMNS, OURS, "rate")
        contestants = [one for one in chosen(options.only) if drain.task in one.slots and drain.task in one.rates]
        for number in range(options.rounds):
            for contestant in contestants:
                say(f"worker {drain.task}, round {number + 1}/{options.rounds}: {contestant.name}")
                try:
                    report.add(contestant.name, measure(contestant, drain, options, servers))
                except (running.Broken, RuntimeError, OSError) as error:
                    report.fail(contestant.name, str(error))
        report.targets = targets(drain)
        reports.append(report)
    return reports


def targets(drain: Drain) -> list[Target]:
    """What the worker promises."""
    stock = tuple(name for name in PEERS if name.startswith("celery"))
    if drain.task == "kept":
        return [
            Target(OURS, "rate", stock, least=drain.celery, text="stock Celery"),
            Target(OURS, "cpu", stock, most=1 / drain.celery, less_is_better=True, text="CPU beside stock Celery"),
        ]
    found = [
        Target(OURS, "rate", PEERS, least=4, text="best peer"),
        Target(OURS, "cpu", PEERS, most=1 / 4, less_is_better=True, text="CPU beside the best peer"),
        Target(OURS, "rate", stock, least=drain.celery, text="stock Celery"),
        Target(OURS, "cpu", stock, most=1 / drain.celery, less_is_better=True, text="CPU beside stock Celery"),
        Target(OURS, "rate", (BATCHED,), least=1 / 3, text="floor"),
    ]
    if drain.task == "noop":
        found.append(Target(DURABLE, "rate", PEERS, least=1, text="durable beside the best peer"))
    return found


def measure(contestant: Contestant, drain: Drain, options: Options, servers: Servers) -> Figures:
    """Fill the queue, start the worker, watch it drain."""
    task = drain.task
    slots = contestant.slots[task]
    backlog = int(contestant.rates[task] * options.seconds * 1.5 + 2 * slots)
    servers.clean()
    with ExitStack() as stack:
        where = stack.enter_context(running.folder())
        more = {"REDIS_URL": servers.redis_url}
        if contestant.database:
            more["DATABASE_URL"] = stack.enter_context(servers.database())
        running.client(contestant, where, more, "fill", task, str(backlog))
        process = stack.enter_context(running.worker(contestant, where, {**more, **drain.env}, slots, options.cores))
        window = (max(1, int(backlog * SETTLE)), backlog - max(slots, backlog // 50))
        return watch(process, where, servers, window, options.seconds)


def watch(
    process: subprocess.Popen[bytes], where: running.Folder, servers: Servers, window: tuple[int, int], seconds: float
) -> Figures:
    """The figures from the first count of the window to the last, or until `seconds` have passed."""
    first, last = window
    running.wait_for(lambda: where.count() >= first, process, "the first tasks")
    pids = machine.tree(process.pid)
    servers.reset_commands()
    began, done, cpu = time.monotonic(), where.count(), machine.cpu_seconds(pids)
    while where.count() < last and time.monotonic() - began < seconds:
        if process.poll() is not None:
            raise running.Broken(f"it ended with {process.returncode} while it drained")
        time.sleep(0.02)
    spent, count, used = time.monotonic() - began, where.count() - done, machine.cpu_seconds(pids) - cpu
    if count <= 0:
        raise running.Broken("nothing ran any more")
    commands = servers.commands() / count
    return {"rate": count / spent, "cpu": used / count * 1e6, "busy": used / spent, "commands": commands}
