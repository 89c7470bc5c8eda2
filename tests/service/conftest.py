"""The API in this process: `api` is an httpx client of the real application, on real Postgres and Valkey."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from callboard_workers.redis.publisher import Publisher
from callboard_workers.runtime import Runtime, _runtimes
from service.access import keys
from service.app import create_app
from service.db import engine as db
from service.settings import Settings

PATIENT = {
    "DB_CONNECT_TIMEOUT": "30",
    "DB_POOL_TIMEOUT": "30",
    "DB_ACCEPT_TIMEOUT": "30",
    "DB_STATEMENT_TIMEOUT": "60",
}
MakeKey = Callable[..., Awaitable[str]]


@pytest.fixture
def settings(database: str, redis_url: str) -> Settings:
    """The settings of a test: its own database and Valkey, and patience with them, for a busy machine is no outage."""
    where = {"DATABASE_URL": database, "REDIS_URL": redis_url, "SECRET_KEY": "a secret of tests only"}
    return Settings.from_env(where | PATIENT)


@contextlib.asynccontextmanager
async def alive(app: Any) -> AsyncIterator[Any]:
    """Run an application's lifespan on this loop, as a server would."""
    incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    outgoing: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    task = asyncio.create_task(app({"type": "lifespan", "asgi": {"version": "3.0"}}, incoming.get, outgoing.put))
    await incoming.put({"type": "lifespan.startup"})
    started = await outgoing.get()
    assert started["type"] == "lifespan.startup.complete", started
    try:
        yield app
    finally:
        await incoming.put({"type": "lifespan.shutdown"})
        stopped = await outgoing.get()
        await task
    assert stopped["type"] == "lifespan.shutdown.complete", stopped


@contextlib.asynccontextmanager
async def client_of(settings: Settings, **more: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a fresh application made with `settings`."""
    async with alive(create_app(settings, **more)) as app:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://callboard.test") as client:
            yield client


@contextlib.asynccontextmanager
async def working(api: Runtime) -> AsyncIterator[Runtime]:
    """A worker's runtime on this loop, beside that of an API in this process, whose place it takes for a while."""
    settings = api.state["settings"]
    engine = db.create_engine(settings)
    runtime = Runtime(engine, Publisher(settings.redis_url))
    runtime.state["settings"] = settings
    runtime.resources.push_async_callback(engine.dispose)
    await runtime.start()
    try:
        yield runtime
    finally:
        await runtime.stop()
        _runtimes[asyncio.get_running_loop()] = api


@pytest.fixture
async def make_key(settings: Settings) -> AsyncIterator[MakeKey]:
    """Makes API keys: `await make_key("emails:send", tenant="shop", mode="test")` is the key's text."""
    engine = db.create_engine(dataclasses.replace(settings, db_connect_timeout=30.0))  # its patience is not under test

    async def make(*scopes: str, tenant: str = "tests", **more: Any) -> str:
        async with db.transaction(db.sessions(engine)) as session:
            _, text = await keys.create(session, tenant, scopes or ("*",), **more)
        return text

    yield make
    await engine.dispose()


@pytest.fixture
async def api(settings: Settings, make_key: MakeKey) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the whole API that bears a live key with every scope."""
    async with client_of(settings) as client:
        client.headers["Authorization"] = f"Bearer {await make_key()}"
        yield client
