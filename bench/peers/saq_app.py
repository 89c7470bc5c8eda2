"""SAQ with results off."""

import asyncio

import kit
from saq import Job, Queue

queue = Queue.from_url(kit.URL)


async def noop(ctx) -> None:
    kit.tick()


async def wait(ctx, *, seconds: float = 0.1) -> None:
    await asyncio.sleep(seconds)
    kit.tick()


async def pong(ctx, *, sent: float) -> None:
    kit.started(sent)


settings = {"queue": queue, "functions": [noop, wait, pong], "concurrency": kit.SLOTS}
ARGUMENT = {"wait": "seconds", "pong": "sent"}


async def send(name: str, *args: float) -> None:
    await queue.enqueue(Job(name, kwargs={ARGUMENT[name]: args[0]} if args else {}, ttl=-1, timeout=60))


async def close() -> None:
    await queue.disconnect()


if __name__ == "__main__":
    kit.main(kit.Client(send, open=queue.connect, close=close))
