"""What every measured app needs, in its worker and as a client; the standard library only, for it runs in each
system's own environment (Python 3.11 or newer).

A worker's tasks call `tick()` and `started(sent)`. As a script an app is a client:

    python <app>.py fill noop 5000              # a backlog for a worker to drain
    python <app>.py publish sequential 2000     # or concurrent, bulk: prints one line of JSON
    python <app>.py latency 200 0.02            # one task every 20 ms to an idle worker

Times are CLOCK_MONOTONIC seconds, one clock for all processes of a machine.
"""

import asyncio
import functools
import gc
import itertools
import json
import mmap
import os
import struct
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ.get("BENCH_FOLDER", "."))
URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
SLOTS = int(os.environ.get("BENCH_SLOTS", "100"))
CONCURRENT = 100
CHUNK = 500

Send = Callable[..., Awaitable[Any]]


class Counter:
    """Counts in a file of this process that another process reads while it grows."""

    def __init__(self) -> None:
        self.numbers = itertools.count(1)
        path = FOLDER / f"{os.getpid()}.count"
        path.write_bytes(bytes(8))
        with path.open("r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 8)
        self.latencies = (FOLDER / f"{os.getpid()}.latency").open("a", buffering=1)

    def tick(self) -> None:
        struct.pack_into("<Q", self.memory, 0, next(self.numbers))

    def started(self, sent: float) -> None:
        self.latencies.write(f"{time.monotonic() - sent}\n")


_counters: dict[int, Counter] = {}
_making = threading.Lock()


def counter() -> Counter:
    """This process's counter, made with the first task; a fork makes its own."""
    found = _counters.get(_pid())
    if found is None:
        with _making:
            found = _counters.get(_pid()) or _counters.setdefault(_pid(), Counter())
    return found


_pid = functools.cache(os.getpid)
os.register_at_fork(after_in_child=_pid.cache_clear)


def tick() -> None:
    """One task ran."""
    counter().tick()


def started(sent: float) -> None:
    """The task that was sent at `sent` has started."""
    counter().started(sent)
    counter().tick()


class Client:
    """How to send with one system. `send(task, *args)`; `send_many(task, count)` where there is a bulk call.

    `blocking`: `send` is an ordinary function that blocks; the concurrent ways then use threads.
    """

    def __init__(
        self,
        send: Callable[..., Any],
        *,
        open: Callable[[], Awaitable[Any]] | None = None,
        close: Callable[[], Awaitable[Any]] | None = None,
        send_many: Callable[[str, int], Any] | None = None,
        blocking: bool = False,
    ) -> None:
        self.raw = send
        self.open = open
        self.close = close
        self.raw_many = send_many
        self.blocking = blocking

    async def send(self, task: str, *args: Any) -> None:
        """Send one task, blocking the loop if that is how the system sends."""
        if self.blocking:
            self.raw(task, *args)
        else:
            await self.raw(task, *args)

    async def send_aside(self, task: str, *args: Any) -> None:
        """Send one task without blocking the loop."""
        if self.blocking:
            await asyncio.to_thread(self.raw, task, *args)
        else:
            await self.raw(task, *args)

    async def send_many(self, task: str, count: int, *args: Any) -> None:
        """Send many in the quickest way there is."""
        if self.raw_many is None or args:
            await self.spread(count, lambda: self.send_aside(task, *args))
        else:
            for start in range(0, count, CHUNK):
                size = min(CHUNK, count - start)
                made = (
                    await asyncio.to_thread(self.raw_many, task, size) if self.blocking else self.raw_many(task, size)
                )
                if not self.blocking:
                    await made

    async def spread(self, count: int, one: Callable[[], Awaitable[Any]]) -> None:
        """Run `one` so many times, a hundred at a time."""
        left = iter(range(count))

        async def some() -> None:
            for _ in left:
                await one()

        await asyncio.gather(*(some() for _ in range(CONCURRENT)))


async def watch_lag(lags: list[float]) -> None:
    """Note by how much the loop oversleeps 1 ms."""
    while True:
        before = time.monotonic()
        await asyncio.sleep(0.001)
        lags.append(time.monotonic() - before - 0.001)


async def publish(client: Client, way: str, count: int) -> dict[str, float]:
    """Send no-op tasks one after another, a hundred at a time, or in bulk; what that cost."""
    await client.send_aside("noop")
    lags: list[float] = []
    watch = asyncio.create_task(watch_lag(lags))
    await asyncio.sleep(0.05)
    lags.clear()
    gc.collect()
    wall, cpu = time.monotonic(), time.process_time()
    if way == "sequential":
        for _ in range(count):
            await client.send("noop")
            await asyncio.sleep(0)
    elif way == "concurrent":
        await client.spread(count, lambda: client.send_aside("noop"))
    else:
        await client.send_many("noop", count)
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    await asyncio.sleep(0.01)
    watch.cancel()
    return {"rate": count / wall, "cpu": cpu / count * 1e6, "lag": max(lags, default=0.0) * 1e3}


async def latency(client: Client, count: int, pause: float) -> dict[str, float]:
    """Send one task, wait, send the next; the worker notes how long each took to start."""
    await client.send_aside("noop")  # opens what is opened with the first message
    await asyncio.sleep(0.2)
    for _ in range(count):
        await client.send_aside("pong", time.monotonic())
        await asyncio.sleep(pause)
    await asyncio.sleep(1)
    return {"sent": count}


async def perform(client: Client, verb: str, args: list[str]) -> dict[str, float]:
    """Run one command of a client."""
    if client.open is not None:
        await client.open()
    try:
        if verb == "fill":
            await client.send_many(args[0], int(args[1]), *map(float, args[2:]))
            return {"sent": int(args[1])}
        if verb == "publish":
            return await publish(client, args[0], int(args[1]))
        return await latency(client, int(args[0]), float(args[1]))
    finally:
        if client.close is not None:
            await client.close()


def main(client: Client) -> None:
    """Be the client that the command line asks for."""
    work = perform(client, sys.argv[1], sys.argv[2:])
    with suppress(ImportError):
        import uvloop  # noqa: PLC0415 - where it is installed

        print(json.dumps(uvloop.run(work)))
        return
    print(json.dumps(asyncio.run(work)))
