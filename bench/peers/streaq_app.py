"""streaQ with results off."""

import asyncio

import kit
from streaq import Worker

worker = Worker(redis_url=kit.URL, concurrency=kit.SLOTS)


@worker.task(name="noop", ttl=0, silent=True)
async def noop() -> None:
    kit.tick()


@worker.task(name="wait", ttl=0, silent=True)
async def wait(seconds: float = 0.1) -> None:
    await asyncio.sleep(seconds)
    kit.tick()


@worker.task(name="pong", ttl=0, silent=True)
async def pong(sent: float) -> None:
    kit.started(sent)


TASKS = {"noop": noop, "wait": wait, "pong": pong}


async def open_worker() -> None:
    await worker.__aenter__()


async def close_worker() -> None:
    await worker.__aexit__(None, None, None)


async def send(name: str, *args: float) -> None:
    await TASKS[name].enqueue(*args)


async def send_many(name: str, count: int) -> None:
    await worker.enqueue_many([TASKS[name].enqueue() for _ in range(count)])


if __name__ == "__main__":
    kit.main(kit.Client(send, open=open_worker, close=close_worker, send_many=send_many))
