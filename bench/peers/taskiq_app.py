"""taskiq over Redis streams (at least once) or, with BENCH_KIND=list, over a list (at most once)."""

import asyncio
import os

import kit
from taskiq_redis import ListQueueBroker, RedisStreamBroker

kind = ListQueueBroker if os.environ.get("BENCH_KIND") == "list" else RedisStreamBroker
broker = kind(kit.URL) if kind is ListQueueBroker else kind(kit.URL, consumer_id="0", xread_count=100)


@broker.task(task_name="noop")
async def noop() -> None:
    kit.tick()


@broker.task(task_name="wait")
async def wait(seconds: float = 0.1) -> None:
    await asyncio.sleep(seconds)
    kit.tick()


@broker.task(task_name="pong")
async def pong(sent: float) -> None:
    kit.started(sent)


TASKS = {"noop": noop, "wait": wait, "pong": pong}


async def send(name: str, *args: float) -> None:
    await TASKS[name].kiq(*args)


if __name__ == "__main__":
    kit.main(kit.Client(send, open=broker.startup, close=broker.shutdown))
