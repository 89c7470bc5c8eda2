"""The floors: the least that a worker on Redis can do, on one asyncio loop, with no product around it.

`python -m bench.floors batched` takes up to 100 messages with one script, which also records them as unacknowledged,
and acknowledges what is done with the next round trip. `python -m bench.floors blpop` takes one message at a time.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import redis.asyncio
import uvloop

from bench.peers import kit

LIST = "floor"
FETCH = """
local got = redis.call('LPOP', KEYS[1], ARGV[1])
if not got then return {} end
local pairs = {}
for i = 1, #got do pairs[#pairs + 1] = ARGV[2] + i; pairs[#pairs + 1] = got[i] end
redis.call('HSET', KEYS[2], unpack(pairs))
return got
"""
BATCH = 100
MESSAGE = json.dumps({"id": "0190a7a0-0000-7000-8000-000000000000", "task": "noop", "args": [[], {}], "retries": 0})


async def run(message: str | bytes) -> None:
    """One task."""
    asked = json.loads(message)
    if asked["task"] == "wait":
        await asyncio.sleep(*asked["args"][0] or [0.1])
    if asked["task"] == "pong":
        kit.started(asked["args"][0][0])
    else:
        kit.tick()


class Batched:
    """Fetches as many as there is room for, and acknowledges by the way."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self.client = client
        self.script = client.register_script(FETCH)
        self.done: list[int] = []
        self.tag = 0
        self.bell = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()

    async def work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            want = min(BATCH, kit.SLOTS - len(self.tasks))
            async with self.client.pipeline(transaction=False) as pipe:
                if self.done:
                    pipe.hdel("floor-unacked", *self.done)
                    self.done = []
                if want > 0:
                    await self.script(keys=[LIST, "floor-unacked"], args=[want, self.tag], client=pipe)
                answers = await pipe.execute()
            got = answers[-1] if want > 0 else []
            for message in got:
                self.tag += 1
                task = loop.create_task(self.one(self.tag, message))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
            if len(got) < want or want <= 0:
                await self.pause()

    async def pause(self) -> None:
        self.bell.clear()
        try:
            async with asyncio.timeout(0.001):
                await self.bell.wait()
        except TimeoutError:
            pass

    async def one(self, tag: int, message: bytes) -> None:
        await run(message)
        self.done.append(tag)
        self.bell.set()


async def blpop(client: redis.asyncio.Redis) -> None:
    """One message at a time, never heard of again if this process dies."""
    room = asyncio.Semaphore(kit.SLOTS)
    tasks: set[asyncio.Task[None]] = set()

    async def one(message: str | bytes) -> None:
        try:
            await run(message)
        finally:
            room.release()

    while True:
        await room.acquire()
        found = await client.blpop([LIST], timeout=1)
        if found is None:
            room.release()
            continue
        task = asyncio.create_task(one(found[1]))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def serve(kind: str) -> None:
    client = redis.asyncio.Redis.from_url(kit.URL)
    await (Batched(client).work() if kind == "batched" else blpop(client))


clients: list[redis.asyncio.Redis] = []


async def start() -> None:
    clients.append(redis.asyncio.Redis.from_url(kit.URL, max_connections=kit.CONCURRENT))


async def stop() -> None:
    await clients[0].aclose()


def message(name: str, *args: Any) -> str:
    return json.dumps({**json.loads(MESSAGE), "task": name, "args": [args, {}]})


async def send(name: str, *args: Any) -> None:
    await clients[0].rpush(LIST, message(name, *args))


async def send_many(name: str, count: int) -> None:
    await clients[0].rpush(LIST, *[message(name)] * count)


if __name__ == "__main__":
    if sys.argv[1] in {"batched", "blpop"}:
        uvloop.run(serve(sys.argv[1]))
    else:
        kit.main(kit.Client(send, open=start, close=stop, send_many=send_many))
