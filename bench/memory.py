"""`memory`: what a worker takes when it is idle, with a thousand tasks in flight, and after a hundred thousand."""

from __future__ import annotations

import subprocess
import time
from contextlib import ExitStack

from bench import machine, running
from bench.contestants import OURS, Contestant, chosen
from bench.options import Options
from bench.progress import say
from bench.report import Column, Figures, Report
from bench.servers import Servers

MIB = 1024 * 1024
IN_FLIGHT = 1000
LASTS = 30.0
"""Seconds a task in flight lasts."""
WATCHED = 4.0
"""Seconds after the last was sent in which memory is looked at."""
WARM = 20
IDLE_MOST = 60.0
EACH_MOST = 10.0
COLUMNS = (
    Column("idle", "idle MiB", ",.1f"),
    Column("busy", "1,000 in flight MiB", ",.1f"),
    Column("each", "kB a task in flight", ",.1f"),
    Column("grown", "MiB grown over 100,000", ",.1f"),
)
MANY = 100_000
"""No-op tasks over which our own workers must not grow; a tenth of it comes before, and with --quick that is all."""
GROWN_MOST = 2.0


def run(options: Options, servers: Servers) -> list[Report]:
    """Every contestant that can have a thousand tasks in flight, in turn."""
    report = Report("memory", "Memory of a worker (PSS of all its processes)", COLUMNS, OURS, "idle")
    for number in range(options.rounds):
        for contestant in chosen(options.only):
            say(f"memory, round {number + 1}/{options.rounds}: {contestant.name}")
            try:
                report.add(contestant.name, measure(contestant, options, servers))
            except (running.Broken, RuntimeError, OSError, subprocess.SubprocessError) as error:
                report.fail(contestant.name, str(error))
    if (mine := report.medians().get(OURS)) is not None:
        report.notes = [
            verdict("idle", mine["idle"], IDLE_MOST, "MiB"),
            verdict("in flight", mine["each"], EACH_MOST, "kB each"),
            verdict(f"grown over {MANY // 10 if options.quick else MANY:,} tasks", mine["grown"], GROWN_MOST, "MiB"),
        ]
    return [report]


def verdict(what: str, value: float, most: float, unit: str) -> str:
    """Whether a promise in absolute terms is kept."""
    return f"{'✓' if value <= most else '✗'} {what}: {value:.1f} {unit} (target ≤ {most:g})"


def measure(contestant: Contestant, options: Options, servers: Servers) -> Figures:
    """Idle after its first task, then with a thousand that wait."""
    slots = contestant.slots.get("hold", 0)
    servers.clean()
    with ExitStack() as stack:
        where = stack.enter_context(running.folder())
        more = {"REDIS_URL": servers.redis_url}
        if contestant.database:
            more["DATABASE_URL"] = stack.enter_context(servers.database())
        process = stack.enter_context(
            running.worker(contestant, where, more, slots or contestant.slots["noop"], options.cores)
        )
        running.client(contestant, where, more, "fill", "noop", str(WARM))
        running.wait_for(lambda: where.count() >= WARM, process, "the first tasks")
        time.sleep(1)
        idle = machine.memory(machine.tree(process.pid)) / MIB
        if not slots:
            return {"idle": idle}
        running.client(contestant, where, more, "fill", "wait", str(IN_FLIGHT), str(LASTS))
        busy = highest(process, where)
    grown = growth(contestant, options, servers) if contestant.name == OURS else {}
    return {"idle": idle, "busy": busy, "each": (busy - idle) * MIB / 1000 / IN_FLIGHT, **grown}


def growth(contestant: Contestant, options: Options, servers: Servers) -> Figures:
    """How much a worker grows over many tasks, once a tenth as many have run."""
    servers.clean()
    sizes = []
    with ExitStack() as stack:
        where = stack.enter_context(running.folder())
        more = {"REDIS_URL": servers.redis_url}
        process = stack.enter_context(running.worker(contestant, where, more, contestant.slots["noop"], options.cores))
        goal = 0
        for count in (MANY // 10, MANY // 10 if options.quick else MANY):
            goal += count
            running.client(contestant, where, more, "fill", "noop", str(count))
            running.wait_for(lambda: where.count() >= goal, process, "the last of many", 120)  # noqa: B023
            time.sleep(1)
            sizes.append(machine.memory(machine.tree(process.pid)) / MIB)
    return {"grown": sizes[1] - sizes[0]}


def highest(process: subprocess.Popen[bytes], where: running.Folder) -> float:
    """The most it takes, in MiB, for some seconds after all were sent, while none has ended."""
    most = 0.0
    deadline = time.monotonic() + WATCHED
    while time.monotonic() < deadline:
        most = max(most, machine.memory(machine.tree(process.pid)) / MIB)
        time.sleep(0.2)
    if where.count() > WARM + IN_FLIGHT // 10:
        raise running.Broken("tasks in flight ended before all were sent")
    return most
