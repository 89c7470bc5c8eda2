"""`latency`: from sending a task to an idle worker until it starts."""

from __future__ import annotations

import statistics
import subprocess
from contextlib import ExitStack

from bench import running
from bench.contestants import OURS, PEERS, Contestant, chosen
from bench.options import Options
from bench.progress import say
from bench.report import Column, Figures, Report, Target
from bench.servers import Servers

COLUMNS = (Column("p50", "p50 ms", ",.2f"), Column("p90", "p90 ms", ",.2f"), Column("p99", "p99 ms", ",.2f"))
PAUSE = 0.02
"""Seconds between two tasks."""


def run(options: Options, servers: Servers) -> list[Report]:
    """Every contestant in turn."""
    report = Report("latency", "From enqueue to start, an idle worker (a task every 20 ms)", COLUMNS, OURS, "p50")
    for number in range(options.rounds):
        for contestant in (one for one in chosen(options.only) if "pong" in one.slots):
            say(f"latency, round {number + 1}/{options.rounds}: {contestant.name}")
            try:
                report.add(contestant.name, measure(contestant, options, servers))
            except (running.Broken, RuntimeError, OSError, subprocess.SubprocessError) as error:
                report.fail(contestant.name, str(error))
    report.targets = [
        Target(OURS, "p50", PEERS, most=1, less_is_better=True, text="p50 beside the best peer"),
        Target(OURS, "p99", PEERS, most=1, less_is_better=True, text="p99 beside the best peer"),
    ]
    report.notes = ["durable: two commits with fsync lie between, the sender's and the claim's"]
    return [report]


def measure(contestant: Contestant, options: Options, servers: Servers) -> Figures:
    """Start the worker, let it run one task and fall idle, then send one task at a time."""
    count = 50 if options.quick else 200
    servers.clean()
    with ExitStack() as stack:
        where = stack.enter_context(running.folder())
        more = {"REDIS_URL": servers.redis_url}
        if contestant.database:
            more["DATABASE_URL"] = stack.enter_context(servers.database())
        slots = contestant.slots["pong"]
        process = stack.enter_context(running.worker(contestant, where, more, slots, options.cores))
        running.client(contestant, where, more, "latency", "3", str(PAUSE))
        running.wait_for(lambda: where.count() >= 4, process, "the first tasks")
        where.forget_latencies()
        running.client(contestant, where, more, "latency", str(count), str(PAUSE))
        running.wait_for(lambda: where.count() >= count + 5, process, f"{count} tasks")
        seconds = where.latencies()
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {"p50": cuts[49] * 1e3, "p90": cuts[89] * 1e3, "p99": cuts[98] * 1e3}
