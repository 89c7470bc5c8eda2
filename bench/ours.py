"""Our own app to be measured: `-m bench.our_worker` runs it, and as a script it is its client (see peers/kit.py).

Logs are off, as every other contestant's are: one line for each task would measure the terminal.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
from typing import TYPE_CHECKING, Any

import structlog

from bench.peers import kit
from callboard_workers.actors.actor import Actor, actor, registry
from callboard_workers.celery import WorkerOptions, create_celery
from callboard_workers.context import current
from callboard_workers.redis.publisher import Publisher
from callboard_workers.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.ext.asyncio import AsyncEngine

    from service.smtp import ServerReply, Transport

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))

DATABASE = os.environ.get("DATABASE_URL", "")
OPTIONS = WorkerOptions(**json.loads(os.environ.get("BENCH_OPTIONS", "{}")))
SMTP_PORT = int(os.environ.get("BENCH_SMTP_PORT", "0"))
FENCED = os.environ.get("BENCH_FENCE", "1") == "1"
SENDER, RECIPIENT = "from@bench.test", "to@bench.test"
MAIL = b"Message-ID: <1@bench.test>\r\nSubject: bench\r\n\r\n" + (b"x" * 70 + b"\r\n") * 14


@actor(name="noop")
async def noop() -> None:
    kit.tick()


@actor(name="kept", result=3600)
async def kept() -> int:
    kit.tick()
    return 42


@actor(name="wait")
async def wait(seconds: float = 0.1) -> None:
    await asyncio.sleep(seconds)
    kit.tick()


@actor(name="pong")
async def pong(sent: float) -> None:
    kit.started(sent)


async def no_fence(_: Mapping[str, ServerReply]) -> None:
    """What a mail costs without a fence."""


async def fence(_: Mapping[str, ServerReply]) -> None:
    """What a mail costs with one."""
    await current().fence()


@actor(name="mail")
async def mail() -> None:
    """Hand one mail to the server, with the fence before its final dot."""
    state = Runtime.of_loop().state
    if "transport" not in state:
        state["transport"] = transport()
    await state["transport"].send(SENDER, [RECIPIENT], MAIL, fence if FENCED else no_fence)


ACTORS: dict[str, Actor[..., Any]] = {"noop": noop, "kept": kept, "wait": wait, "pong": pong, "mail": mail}


def transport() -> Transport:
    """The service's; a worker without mail does not load it."""
    from service.smtp import Transport  # noqa: PLC0415
    from service.smtp.pool import Bounds  # noqa: PLC0415

    return Transport("127.0.0.1", SMTP_PORT, bounds=Bounds(size=kit.CONCURRENT))


def engine() -> AsyncEngine | None:
    """The engine of this process, where there is a database."""
    if not DATABASE:
        return None
    from service.db import engine as db  # noqa: PLC0415
    from service.settings import Settings  # noqa: PLC0415

    return db.create_engine(Settings.from_env({"DATABASE_URL": DATABASE}))


async def open_runtime() -> Runtime:
    return Runtime(engine(), Publisher(kit.URL))


RESULTS = kit.URL if os.environ.get("BENCH_RESULTS") else None
app = create_celery(kit.URL, RESULTS, open_runtime, registry, name="bench", options=OPTIONS)


async def start() -> None:
    """Open the client's runtime."""
    await (await open_runtime()).start()


async def stop() -> None:
    """Close it; what was rung for is pushed."""
    runtime = Runtime.of_loop()
    await runtime.stop()
    if runtime.engine is not None:
        await runtime.engine.dispose()


async def send(name: str, *args: Any) -> None:
    """One message: through the ledger where there is a database, else through the broker alone."""
    engine = Runtime.of_loop().engine
    if engine is None:
        await ACTORS[name].send(*args)
        return
    async with engine.begin() as connection:
        await ACTORS[name].enqueue(connection, *args)


async def send_many(name: str, count: int) -> None:
    """A batch in one call."""
    runtime = Runtime.of_loop()
    messages = [ACTORS[name].message() for _ in itertools.repeat(None, count)]
    if runtime.engine is None:
        await runtime.publisher.publish(messages)
        return
    async with runtime.engine.begin() as connection:
        await runtime.enqueue(connection, *messages)


if __name__ == "__main__":
    kit.main(kit.Client(send, open=start, close=stop, send_many=send_many))
