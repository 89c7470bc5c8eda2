"""A small app for worker processes under test: actors that write what they do into a journal file."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import time
from contextlib import suppress
from decimal import Decimal
from typing import Any
from uuid import UUID

from celery.exceptions import Reject, SoftTimeLimitExceeded

from callboard_workers.actors.actor import actor, registry
from callboard_workers.celery import WorkerOptions, create_celery
from callboard_workers.context import current
from callboard_workers.errors import Retry, Snooze
from callboard_workers.message import Message
from callboard_workers.middleware import Middleware, defaults
from callboard_workers.policy import Backoff
from callboard_workers.redis.publisher import Publisher
from callboard_workers.redis.signing import Signer
from callboard_workers.runtime import Runtime

JOURNAL = os.environ.get("JOURNAL", os.devnull)
URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:1/0")
PREFIX = os.environ.get("PREFIX", "")
KEYS = tuple(os.environ.get("SIGNING_KEYS", "").split())
SIGNER = Signer(KEYS) if KEYS else None
OPTIONS = WorkerOptions(**json.loads(os.environ.get("WORKER_OPTIONS", "{}")), signer=SIGNER)


def note(event: str, tag: str) -> None:
    """One line, appended in one write: two processes may share the journal."""
    descriptor = os.open(JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{event} {tag} {os.getpid()}\n".encode())
    os.close(descriptor)


@actor(name="demo.work", time_limit=None)
async def work(tag: str, seconds: float = 0.0) -> None:
    note("start", tag)
    await asyncio.sleep(seconds)
    note("end", tag)


@actor(name="demo.urgent", queue="urgent", priority="critical")
async def urgent(tag: str) -> None:
    note("start", tag)


@actor(name="demo.flaky", max_retries=5, backoff=Backoff(min=0.05, max=0.1))
async def flaky(tag: str, succeed_at: int) -> None:
    note(f"attempt{current().attempt}", tag)
    if current().attempt < succeed_at:
        raise ValueError("not yet")


@actor(name="demo.sleepy", max_snoozes=5)
async def sleepy(tag: str) -> None:
    note(f"attempt{current().attempt}", tag)
    if not os.path.exists(f"{JOURNAL}.{tag}"):  # noqa: ASYNC240
        open(f"{JOURNAL}.{tag}", "w").close()  # noqa: ASYNC230
        raise Snooze(0.1, "later")


@actor(name="demo.again", max_retries=1)
async def again(tag: str) -> None:
    note(f"attempt{current().attempt}", tag)
    raise Retry(0.05, "always")


@actor(name="demo.fail", throws=(KeyError,))
async def fail(tag: str) -> None:
    note("start", tag)
    raise KeyError(tag)


@actor(name="demo.heavy", max_retries=0)
async def heavy(tag: str) -> None:
    fail_with_much(tag)


@actor(name="demo.heavy_thread", max_retries=0)
def heavy_thread(tag: str) -> None:
    fail_with_much(tag)


def fail_with_much(tag: str) -> None:
    local = b"x" * 20_000_000
    note("start", tag)
    raise ValueError(len(local))


class OutOfStock(Exception):
    """An error of the app's own."""


@actor(name="demo.buy", result=60, max_retries=0)
async def buy(card: str) -> None:
    number = f"card number {card}"
    raise OutOfStock("nothing left", len(number))


@actor(name="demo.add", result=60)
async def add(a: int, b: int) -> int:
    return a + b


@actor(name="demo.total", result=60)
async def total(numbers: list[int]) -> int:
    return sum(numbers)


@actor(name="demo.values", result=60)
async def values() -> dict[str, Any]:
    return {"id": UUID(int=1), "at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "price": Decimal("1.50")}


@actor(name="demo.unstorable", result=60)
async def unstorable() -> object:
    return object()


@actor(name="demo.trying", result=60, backoff=Backoff(min=600, max=600))
async def trying(tag: str, seconds: float | None = None) -> str:
    note("start", tag)
    if seconds is None:
        raise ValueError("not yet")
    await asyncio.sleep(seconds)
    return tag


@actor(name="demo.tracked", result=60)
async def tracked(tag: str) -> None:
    note("start", tag)
    await asyncio.sleep(60)


@actor(name="demo.block", time_limit=None)
async def block(tag: str, seconds: float) -> None:
    note("start", tag)
    time.sleep(seconds)  # noqa: ASYNC251 - it is what must not harm the worker
    note("end", tag)


@actor(name="demo.die")
async def die(tag: str) -> None:
    note("start", tag)
    os._exit(1)


@actor(name="demo.fragile", max_crashes=2)
async def fragile(tag: str) -> None:
    note("start", tag)
    os._exit(1)


@actor(name="demo.crashes")
async def crashes(tag: str) -> None:
    note(f"crashes{current().crashes}", tag)


@actor(name="demo.stubborn", time_limit=0.2, grace=0.2, max_retries=0)
async def stubborn(tag: str, seconds: float) -> None:
    """Does not let go."""
    note("start", tag)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            await asyncio.sleep(0.1)
        except asyncio.CancelledError:
            note("asked", tag)
    note("end", tag)


@actor(name="demo.noop")
async def noop() -> None:
    counted[0] += 1
    if counted[0] % 1_000 == 0:
        note("thousand", str(counted[0] // 1_000))


counted = [0]


class Mourner(Middleware):
    """Notes whom its worker died with."""

    def lost(self, message: Message) -> None:
        note(f"lost {message.actor} {message.queue}", str(message.id))


async def open_runtime() -> Runtime:
    return Runtime(None, Publisher(URL, key_prefix=PREFIX, signer=SIGNER), middleware=[*defaults(), Mourner()])


app = create_celery(
    URL,
    os.environ.get("RESULTS"),
    open_runtime,
    registry,
    key_prefix=PREFIX,
    options=OPTIONS,
    result_expires=7200,
    worker_concurrency=int(os.environ.get("CONCURRENCY", "50")),
    beat_schedule={"tick": {"task": "demo.work", "schedule": 0.5, "args": ["tick"]}},
)


@app.task(name="demo.chatty", bind=True)
async def chatty(self, tag: str) -> str:  # type: ignore[no-untyped-def]
    """A plain Celery task that is a coroutine function: its request must stay its own while others take turns."""
    mine = self.request.id
    for _ in range(5):
        await asyncio.sleep(0.02)
        assert self.request.id == mine
    note("end", tag)
    return mine


app.tasks["demo.tracked"].track_started = True


@app.task(name="demo.plain_add", ignore_result=False)
def plain_add(a: int, b: int) -> int:
    """A plain Celery task with a result."""
    return a + b


@app.task(name="demo.tired", bind=True, autoretry_for=(ValueError,), retry_backoff=False, default_retry_delay=0)
async def tired(self, tag: str) -> None:  # type: ignore[no-untyped-def]
    await asyncio.sleep(0)
    note(f"attempt{self.request.retries + 1}", tag)
    if self.request.retries < 2:
        raise ValueError("not yet")


@app.task(name="demo.plain")
def plain(tag: str) -> None:
    """A plain Celery task that blocks: it runs on a thread."""
    time.sleep(0.05)
    note("end", tag)


@app.task(name="demo.slow", time_limit=4)
def slow(tag: str, seconds: float) -> None:
    time.sleep(seconds)
    note("end", tag)


@app.task(name="demo.soft_thread", soft_time_limit=0.2, ignore_result=False)
def soft_thread(tag: str) -> str:
    try:
        while True:
            time.sleep(0.01)
    except SoftTimeLimitExceeded:
        return "cleaned up"


@app.task(name="demo.late", time_limit=0.2, ignore_result=False)
def late(tag: str) -> str:
    """Does not let go."""
    note("start", tag)
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        with suppress(Exception):
            time.sleep(0.1)
    note("late", tag)
    return "late"


@app.task(name="demo.late_loop", time_limit=0.2, ignore_result=False)
async def late_loop(tag: str) -> str:
    """As `late`, on the loop."""
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(30)
    note("late", tag)
    return "late"


@app.task(name="demo.rejecting", bind=True)
def rejecting(self, tag: str) -> None:  # type: ignore[no-untyped-def]
    """The pattern of Celery's user guide: once more, but not twice."""
    if not self.request.delivery_info["redelivered"]:
        note("rejected", tag)
        raise Reject(requeue=True)
    note("end", tag)


@app.task(name="demo.plain_heavy")
def plain_heavy(tag: str) -> None:
    fail_with_much(tag)


@app.task(name="demo.soft", soft_time_limit=0.2)
async def soft(tag: str) -> None:
    try:
        await asyncio.sleep(30)
    except asyncio.CancelledError:
        note("cancelled", tag)
        raise


@app.task(name="demo.hard", time_limit=0.2)
async def hard(tag: str) -> None:
    note("start", tag)
    await asyncio.sleep(30)
