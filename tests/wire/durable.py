"""An app for worker processes under test whose messages are rows."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from sqlalchemy.ext.asyncio import create_async_engine

from callboard_workers.actors.actor import actor
from callboard_workers.celery import create_celery
from callboard_workers.context import current
from callboard_workers.policy import Backoff
from callboard_workers.redis.publisher import Publisher
from callboard_workers.runtime import Runtime
from tests.wire.demo import JOURNAL, OPTIONS, URL, note

DATABASE = os.environ.get("DATABASE_URL", "postgresql://")


@actor(name="durable.work", time_limit=None)
async def work(tag: str, seconds: float = 0.0) -> None:
    note("start", tag)
    await asyncio.sleep(seconds)
    note("end", tag)


@actor(name="durable.flaky", max_retries=5, backoff=Backoff(min=0.05, max=0.1))
async def flaky(tag: str, succeed_at: int) -> None:
    note(f"attempt{current().attempt}", tag)
    if current().attempt < succeed_at:
        raise ValueError("not yet")


@actor(name="durable.swell", time_limit=None)
async def swell(size: int) -> None:
    """Takes memory bit by bit, once the test has set its process a limit."""
    while not os.path.exists(f"{JOURNAL}.{os.getpid()}"):  # noqa: ASYNC110, ASYNC240
        await asyncio.sleep(0.05)
    taken = []
    while size > 0:
        taken.append(b"x" * 1_000_000)
        size -= 1_000_000
        await asyncio.sleep(0.005)


@actor(name="durable.wait", time_limit=None)
async def wait(tag: str) -> None:
    """Waits for the test's leave, as an email waits for its turn to be sent."""
    note("start", tag)
    while not os.path.exists(f"{JOURNAL}.open"):  # noqa: ASYNC110, ASYNC240
        await asyncio.sleep(0.1)
    note("end", tag)


@actor(name="durable.fenced", time_limit=None)
async def fenced(tag: str) -> None:
    """Passes its fence and waits for the test's leave, as an email waits for the reply to its final dot."""
    note("start", tag)
    await current().fence()
    note("fenced", tag)
    while not os.path.exists(f"{JOURNAL}.open"):  # noqa: ASYNC110, ASYNC240
        await asyncio.sleep(0.05)
    note("end", tag)


@actor(name="durable.late", time_limit=None)
async def late(tag: str) -> None:
    """Comes to its fence once the test says so."""
    note("start", tag)
    while not os.path.exists(f"{JOURNAL}.late"):  # noqa: ASYNC110, ASYNC240
        await asyncio.sleep(0.05)
    await current().fence()
    note("fenced", tag)


@actor(name="durable.release", time_limit=None, on_stop="release")
async def release(tag: str) -> None:
    note("start", tag)
    await asyncio.sleep(600)


@actor(name="durable.poison", time_limit=None)
async def poison(tag: str) -> None:
    """Kills its worker, once everything else that the process was given has begun."""
    note("start", tag)
    await asyncio.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)


@actor(name="durable.block", time_limit=None)
async def block(tag: str, seconds: float) -> None:
    """Blocks the loop, the first time it is run."""
    note("start", tag)
    if not current().redelivered:
        time.sleep(seconds)  # noqa: ASYNC251 - it is what must not hold the message
    note("end", tag)


async def open_runtime() -> Runtime:
    engine = create_async_engine(DATABASE.replace("postgresql://", "postgresql+asyncpg://"))
    runtime = Runtime(engine, Publisher(URL), lease=OPTIONS.lease, sweep_every=0.2)
    runtime.resources.push_async_callback(engine.dispose)
    return runtime


app = create_celery(
    URL,
    None,
    open_runtime,
    [work, flaky, swell, wait, fenced, late, release, poison, block],
    options=OPTIONS,
    worker_concurrency=50,
)
