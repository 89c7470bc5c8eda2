"""What `callboard chaos` breaks: each fault breaks one thing, and mends it before it returns."""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import redis
from uuid_utils.compat import uuid7

from service.dev.chaos.fleet import Worker, by_hand
from service.dev.chaos.sink import Rule
from service.dev.chaos.site import LEASE, Site

Fault = Callable[[Site, random.Random], Awaitable[str | None]]
"""Breaks and mends; returns what must not be, if it saw such a thing."""

FAULTS: dict[str, Fault] = {}


def fault(function: Fault) -> Fault:
    """Adds a fault to those that a run chooses from."""
    FAULTS[function.__name__] = function
    return function


def _worker(site: Site, dice: random.Random) -> Worker:
    return dice.choice(site.fleet.workers)


@fault
async def worker_killed(site: Site, dice: random.Random) -> None:
    """kill -9 in the midst of its mail."""
    worker = _worker(site, dice)
    await by_hand(worker.kill)
    await asyncio.sleep(dice.uniform(0, 1))
    await by_hand(worker.start)


@fault
async def worker_stopped(site: Site, dice: random.Random) -> str | None:
    """SIGTERM: it finishes what it has begun, and ends with 0."""
    worker = _worker(site, dice)
    worker.signal(signal.SIGTERM)
    try:
        code: int | None = await by_hand(worker.ended, 60)
    except subprocess.TimeoutExpired:
        code = None
        await by_hand(worker.kill)
    await by_hand(worker.start)
    return None if code == 0 else f"{worker.name} ended with {code} after SIGTERM"


@fault
async def worker_stopped_then_killed(site: Site, dice: random.Random) -> None:
    """SIGTERM, and SIGKILL before it is done."""
    worker = _worker(site, dice)
    worker.signal(signal.SIGTERM)
    await asyncio.sleep(dice.uniform(0, 0.4))
    await by_hand(worker.kill)
    await by_hand(worker.start)


@fault
async def worker_frozen(site: Site, dice: random.Random) -> None:
    """SIGSTOP until its leases have gone to others, then SIGCONT."""
    worker = _worker(site, dice)
    worker.pause()
    await asyncio.sleep(LEASE + dice.uniform(1, 3))
    worker.resume()


@fault
async def api_killed(site: Site, dice: random.Random) -> None:
    """kill -9: also between a commit and its doorbell."""
    await by_hand(site.fleet.api.kill)
    await by_hand(site.fleet.api.start)


@fault
async def postgres_killed(site: Site, dice: random.Random) -> None:
    """kill -9 of the postmaster: every connection is gone, recovery follows."""
    await by_hand(site.stack.postgres.kill)
    await asyncio.sleep(dice.uniform(0, 1.5))
    await by_hand(site.stack.postgres.start)


@fault
async def postgres_frozen(site: Site, dice: random.Random) -> None:
    """SIGSTOP of every process of the server: connections stay open and hear nothing."""
    every = [site.stack.postgres.pid, *_children(site.stack.postgres.pid)]
    for number, pause in ((signal.SIGSTOP, dice.uniform(1, 4)), (signal.SIGCONT, 0.0)):
        for pid in every:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        await asyncio.sleep(pause)


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@fault
async def commit_unheard(site: Site, dice: random.Random) -> None:
    """The API's next writes reach Postgres, and the answers do not reach the API."""
    proxy = site.proxies["api_db"]
    for _ in range(3):
        proxy.cut_at(b"@example.org", passing=True)
        await asyncio.sleep(dice.uniform(0.05, 0.4))
        proxy.heal()


@fault
async def worker_cut_from_postgres(site: Site, dice: random.Random) -> None:
    """Connections of the workers to Postgres are reset, at any statement."""
    for _ in range(5):
        site.proxies["db"].cut()
        await asyncio.sleep(dice.uniform(0.05, 0.4))


@fault
async def worker_partitioned_from_postgres(site: Site, dice: random.Random) -> None:
    """Nothing passes between the workers and Postgres for a while, and no connection closes."""
    await _blackhole(site, "db", dice.uniform(1, LEASE + 2))


@fault
async def worker_partitioned_from_redis(site: Site, dice: random.Random) -> None:
    """Nothing passes between the workers and Redis for a while."""
    await _blackhole(site, "redis", dice.uniform(1, 4))


@fault
async def worker_partitioned_from_smtp(site: Site, dice: random.Random) -> None:
    """Nothing passes between the workers and the mail server; then what was open is reset."""
    await _blackhole(site, "smtp", dice.uniform(0.2, 2))


async def _blackhole(site: Site, name: str, seconds: float) -> None:
    proxy = site.proxies[name]
    proxy.blackhole()
    await asyncio.sleep(seconds)
    proxy.heal()
    proxy.cut()  # what was swallowed is missing: neither end may go on as if it had arrived


@fault
async def valkey_killed(site: Site, dice: random.Random) -> None:
    """kill -9: up to a second of its file is lost too."""
    await by_hand(site.stack.valkey.kill)
    await asyncio.sleep(dice.uniform(0, 1.5))
    await by_hand(site.stack.valkey.start)


@fault
async def valkey_emptied(site: Site, dice: random.Random) -> None:
    """FLUSHALL."""
    with contextlib.suppress(redis.RedisError):
        await site.books.flush()


@fault
async def valkey_frozen(site: Site, dice: random.Random) -> None:
    """SIGSTOP: connections stay open and hear nothing."""
    site.stack.valkey.pause()
    await asyncio.sleep(dice.uniform(1, 4))
    site.stack.valkey.resume()


@fault
async def doorbells_forged(site: Site, dice: random.Random) -> None:
    """Each id three times over, those of finished mails, and some of mails that never were."""
    ids = site.caller.ids
    chosen = dice.sample(ids, min(len(ids), 100)) * 3 + [uuid7() for _ in range(20)]
    dice.shuffle(chosen)
    with contextlib.suppress(redis.RedisError, OSError):
        await site.books.ring(chosen)


@fault
async def smtp_refuses(site: Site, dice: random.Random) -> None:
    """Definite answers: try later at any phase, or never."""
    answers = {
        "banner": ["421 4.7.0 too many connections"],
        "mail": ["451 4.3.0 later", "552 5.3.4 too large"],
        "rcpt": ["450 4.2.1 greylisted", "452 4.5.3 too many", "550 5.1.1 no such user"],
        "data": ["451 4.3.2 not now"],
        "dot": ["451 4.3.0 later", "554 5.7.1 refused"],
    }
    phase = dice.choice(sorted(answers))
    await _rules(site, phase, Rule(dice.choice(answers[phase]), times=5), dice)


@fault
async def smtp_hangs_up(site: Site, dice: random.Random) -> None:
    """The mail server closes before the dot, at the dot, or after it has taken the mail and before it says so."""
    phase = dice.choice(["banner", "mail", "rcpt", "data", "body", "dot", "dot"])
    await _rules(site, phase, Rule(then="close", times=4, accept=dice.random() < 0.5), dice)


@fault
async def smtp_cut(site: Site, dice: random.Random) -> None:
    """Every connection to the mail server is reset, wherever it stands."""
    for _ in range(3):
        site.sink.cut()
        await asyncio.sleep(dice.uniform(0.05, 0.3))


async def _rules(site: Site, phase: str, rule: Rule, dice: random.Random) -> None:
    site.sink.rules[phase] = [rule]
    await asyncio.sleep(dice.uniform(0.5, 2))
    site.sink.rules.pop(phase, None)
