"""`publish`: how fast one event loop sends, what that costs it, for how long it stands still; and a frozen Redis."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench import running
from bench.contestants import BATCHED, OURS, PEERS, Contestant, chosen
from bench.options import Options
from bench.peers import kit
from bench.progress import say
from bench.report import Column, Figures, Report, Target
from bench.servers import Servers

WAYS = ("sequential", "concurrent", "bulk")
COLUMNS = (
    Column("sequential", "one by one /s"),
    Column("concurrent", "100 at a time /s"),
    Column("bulk", "bulk /s"),
    Column("cpu", "CPU µs each (100)", ",.0f"),
    Column("lag", "loop stands still (100) ms", ",.1f"),
)
DEADLINE = 2.0


def run(options: Options, servers: Servers) -> list[Report]:
    """Every client in turn, each way of sending; then our publisher against a Redis that answers nothing."""
    report = Report("publish", "Publishing no-op tasks from one event loop", COLUMNS, OURS, "concurrent")
    contestants = [one for one in chosen(options.only) if one.publishes]
    for number in range(options.rounds):
        for contestant in contestants:
            say(f"publish, round {number + 1}/{options.rounds}: {contestant.name}")
            try:
                report.add(contestant.name, measure(contestant, options, servers))
            except (running.Broken, RuntimeError, OSError, subprocess.SubprocessError) as error:
                report.fail(contestant.name, str(error))
    report.targets = [
        Target(OURS, "concurrent", PEERS, least=3, text="100 at a time"),
        Target(OURS, "cpu", PEERS, most=1 / 3, less_is_better=True, text="CPU of each, 100 at a time"),
        Target(OURS, "bulk", PEERS, least=3, text="bulk"),
        Target(OURS, "concurrent", (BATCHED,), least=0.3, text="100 at a time beside redis-py's pool"),
    ]
    if not options.only or OURS in (one.name for one in contestants):
        say("publish: Redis frozen")
        report.notes.append(asyncio.run(frozen(servers)))
    return [report]


def measure(contestant: Contestant, options: Options, servers: Servers) -> Figures:
    """One client, each way."""
    figures: Figures = {}
    sizes = {"sequential": 2, "concurrent": 4, "bulk": 8}
    each = 1500 if contestant.name not in PEERS else 200
    for way in WAYS:
        servers.clean()
        count = int(sizes[way] * each * options.seconds)
        with running.folder() as where:
            more = {"REDIS_URL": servers.redis_url}
            found = running.client(contestant, where, more, "publish", way, str(count), cores=options.cores)
        figures[way] = found["rate"]
        if way == "concurrent":
            figures["cpu"], figures["lag"] = found["cpu"], found["lag"]
    return figures


@contextmanager
def frozen_process(pid: int) -> Iterator[None]:
    """Inside, the process stands still: its sockets stay open and answer nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def frozen(servers: Servers) -> str:
    """Publish to a Redis that stands still: how long callers wait, how long the loop did, and how it goes on after."""
    from bench import ours  # noqa: PLC0415 - imports the whole library: only where it is measured
    from callboard_workers.errors import BrokerUnavailable  # noqa: PLC0415
    from callboard_workers.redis.publisher import Publisher  # noqa: PLC0415

    publisher = Publisher(servers.redis_url, deadline=DEADLINE)
    await publisher.start()
    await publisher.publish([ours.noop.message()])
    lags: list[float] = []
    watch = asyncio.create_task(kit.watch_lag(lags))

    async def attempt() -> tuple[float, bool]:
        began = time.monotonic()
        try:
            await publisher.publish([ours.noop.message()])
        except BrokerUnavailable:
            return time.monotonic() - began, False
        return time.monotonic() - began, True

    with frozen_process(servers.stack.valkey.pid):
        first = await asyncio.gather(*(attempt() for _ in range(50)))
        second = await asyncio.gather(*(attempt() for _ in range(50)))
    began = time.monotonic()
    while not (await attempt())[1]:  # noqa: ASYNC110 - it publishes, it does not poll
        await asyncio.sleep(0.02)
    back = time.monotonic() - began
    watch.cancel()
    await publisher.stop()
    failed = not any(arrived for _, arrived in (*first, *second))
    kept = failed and max(seconds for seconds, _ in first) < DEADLINE + 0.5
    return (
        f"{'✓' if kept else '✗'} Redis frozen: 50 publishers fail after {max(s for s, _ in first):.2f} s at the latest "
        f"(deadline {DEADLINE:g} s), the next 50 after {max(s for s, _ in second) * 1000:.1f} ms; "
        f"the loop stood still for {max(lags) * 1000:.1f} ms; publishing again {back:.2f} s after the thaw"
    )
