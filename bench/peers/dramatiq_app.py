"""dramatiq over Redis: actors that are functions on threads, or, with BENCH_KIND=asyncio, coroutines on its loop."""

import asyncio
import os
import time

import dramatiq
import kit
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import AsyncIO

ASYNCIO = os.environ.get("BENCH_KIND") == "asyncio"
broker = RedisBroker(url=kit.URL)
broker.middleware = [layer for layer in broker.middleware if type(layer).__name__ != "Prometheus"]
if ASYNCIO:
    broker.add_middleware(AsyncIO())
dramatiq.set_broker(broker)


def tick() -> None:
    kit.tick()


def doze(seconds: float = 0.1) -> None:
    time.sleep(seconds)
    kit.tick()


async def tick_async() -> None:
    kit.tick()


async def doze_async(seconds: float = 0.1) -> None:
    await asyncio.sleep(seconds)
    kit.tick()


noop = dramatiq.actor(tick_async if ASYNCIO else tick, actor_name="noop")
wait = dramatiq.actor(doze_async if ASYNCIO else doze, actor_name="wait")


@dramatiq.actor(actor_name="pong")
def pong(sent: float) -> None:
    kit.started(sent)


TASKS = {"noop": noop, "wait": wait, "pong": pong}


def send(name: str, *args: float) -> None:
    TASKS[name].send(*args)


if __name__ == "__main__":
    kit.main(kit.Client(send, blocking=True))
