"""arq with results off."""

import asyncio

import kit
from arq import create_pool, func
from arq.connections import RedisSettings

SETTINGS = RedisSettings.from_dsn(kit.URL)


async def noop(ctx) -> None:
    kit.tick()


async def wait(ctx, seconds: float = 0.1) -> None:
    await asyncio.sleep(seconds)
    kit.tick()


async def pong(ctx, sent: float) -> None:
    kit.started(sent)


class WorkerSettings:
    functions = tuple(func(task, keep_result=0) for task in (noop, wait, pong))
    redis_settings = SETTINGS
    max_jobs = kit.SLOTS
    keep_result = 0
    log_results = False


pools = []


async def open_pool() -> None:
    pools.append(await create_pool(SETTINGS))


async def close_pool() -> None:
    await pools[0].aclose()


async def send(name: str, *args: float) -> None:
    await pools[0].enqueue_job(name, *args)


if __name__ == "__main__":
    kit.main(kit.Client(send, open=open_pool, close=close_pool))
