"""Mails through a worker to a server that takes 200 ms for each, with the same cap on connections for everybody."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from bench import machine, running
from bench.contestants import Contestant, celery, ours
from bench.options import Options
from bench.progress import say
from bench.report import Column, Figures, Report, Target
from bench.servers import Servers

DELAY = 0.2
CONNECTIONS = 100
SERVICE = "callboard: emails.send_email"
FENCED = "callboard: a mail behind its fence"
UNFENCED = "callboard: the same without a fence"
EACH = "celery threads + smtplib"
KEPT = "celery threads + smtplib, kept"
COLUMNS = (Column("rate", "mails/s"), Column("cpu", "CPU µs/mail"), Column("busy", "of a core", ".0%"))
MAIL = {"mail": CONNECTIONS}
SLOTS = {"mail": 3 * CONNECTIONS}
"""A coroutine that waits for a connection costs nothing; a thread that does is one of a hundred."""
RATE = {"mail": 400}

SEND_EMAIL = Contestant(
    SERVICE,
    (
        *("{python}", "-m", "celery", "-q", "-A", "service", "worker", "-c", "{slots}", "-l", "CRITICAL"),
        *("--without-gossip", "--without-mingle"),
    ),
    ("{python}", "-m", "bench.letters"),
    RATE,
    SLOTS,
    env={
        "MAIL_FROM": "Bench <from@bench.example.org>",
        "SECRET_KEY": "of a benchmark only",
        "SMTP_HOST": "127.0.0.1",
        "SMTP_TLS": "none",
        "SMTP_POOL_SIZE": str(CONNECTIONS),
        "LOG_LEVEL": "ERROR",
    },
    database=True,
)


def contestants() -> list[Contestant]:
    """Ours, whole and in parts, and Celery's threads."""
    fenced = replace(ours(FENCED, "{}", RATE), slots=SLOTS, database=True)
    threads = celery("threads", {"mail": 140}, MAIL)
    return [
        SEND_EMAIL,
        fenced,
        replace(fenced, name=UNFENCED, env={**fenced.env, "BENCH_FENCE": "0"}),
        replace(threads, name=EACH),
        replace(threads, name=KEPT, env={"BENCH_KEEP": "1"}),
    ]


def run(options: Options, servers: Servers) -> list[Report]:
    """Every contestant in turn, every round."""
    title = f"Mails through a worker, a server that takes {DELAY * 1000:.0f} ms, {CONNECTIONS} connections"
    report = Report("mails", title, COLUMNS, SERVICE, "rate")
    words = [word.strip().lower() for word in options.only.split(",") if word.strip()]
    for number in range(options.rounds):
        for contestant in contestants():
            if words and not any(word in contestant.name.lower() for word in words):
                continue
            say(f"smtp, round {number + 1}/{options.rounds}: {contestant.name}")
            try:
                report.add(contestant.name, measure(contestant, options, servers))
            except (running.Broken, RuntimeError, OSError, subprocess.SubprocessError) as error:
                report.fail(contestant.name, str(error))
    report.targets = [
        Target(SERVICE, "rate", (EACH,), least=2, text="mails/s"),
        Target(SERVICE, "cpu", (EACH,), most=0.5, less_is_better=True, text="CPU for each mail"),
        Target(FENCED, "cpu", (UNFENCED,), most=1.2, less_is_better=True, text="the fence, in CPU"),
        Target(FENCED, "rate", (UNFENCED,), least=0.8, text="the fence, in mails/s"),
    ]
    report.notes = [f"no worker can pass {CONNECTIONS / DELAY:,.0f} mails/s: {CONNECTIONS} connections ÷ {DELAY} s"]
    return [report]


def measure(contestant: Contestant, options: Options, servers: Servers) -> Figures:
    """Fill the queue, start the worker, count what the mail server takes."""
    backlog = int(contestant.rates["mail"] * options.seconds * 2 + 5 * CONNECTIONS)
    servers.clean()
    with ExitStack() as stack:
        sink = stack.enter_context(running.folder())
        where = stack.enter_context(running.folder())
        port = stack.enter_context(mail_server(sink))
        more = {"REDIS_URL": servers.redis_url, "BENCH_SMTP_PORT": str(port), "SMTP_PORT": str(port)}
        if contestant.database:
            more["DATABASE_URL"] = stack.enter_context(servers.database())
        running.client(contestant, where, more, "fill", "mail", str(backlog))
        process = stack.enter_context(running.worker(contestant, where, more, contestant.slots["mail"], options.cores))
        return watch(process, sink, backlog, options.seconds * 1.5)


def watch(process: subprocess.Popen[bytes], sink: running.Folder, backlog: int, seconds: float) -> Figures:
    """The figures from the time all connections are busy, until `seconds` have passed or few mails are left."""
    running.wait_for(lambda: sink.count() >= CONNECTIONS * 3 // 2, process, "the first mails")
    pids = machine.tree(process.pid)
    began, done, cpu = time.monotonic(), sink.count(), machine.cpu_seconds(pids)
    while sink.count() < backlog - 3 * CONNECTIONS and time.monotonic() - began < seconds:
        time.sleep(0.02)
    spent, count, used = time.monotonic() - began, sink.count() - done, machine.cpu_seconds(pids) - cpu
    if count <= 0:
        raise running.Broken("no mail arrived any more")
    return {"rate": count / spent, "cpu": used / count * 1e6, "busy": used / spent}


@contextmanager
def mail_server(sink: running.Folder) -> Iterator[int]:
    """The slow server, in a process of its own that counts what it takes; yields its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.smtp", "--serve", str(DELAY)],
        env={**os.environ, "BENCH_FOLDER": str(sink.path)},
        cwd=running.ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
