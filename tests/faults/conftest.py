"""One API and two workers for each file of faults, over real servers; healed after every test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import redis

from service.dev.chaos.fleet import by_hand
from service.dev.chaos.site import Site, open_site
from service.dev.databases import Databases
from service.dev.stack import Stack
from tests.conftest import fresh


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def running(
    stack: Stack, databases: Databases, template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Site]:
    """The site of a file; every server is reached through its proxy."""
    made = fresh(stack, databases, template)
    folder: Path = tmp_path_factory.mktemp("site")
    with redis.Redis.from_url(stack.redis_url) as client:
        client.flushall()
    async with open_site(stack, next(made), folder) as site:
        await site.open(2, api=("api_db",), through=("db", "redis", "smtp"))
        yield site
    next(made, None)


@pytest_asyncio.fixture(loop_scope="module")
async def site(running: Site) -> AsyncIterator[Site]:
    """The site, well; whatever a test breaks is mended after it."""
    yield running
    running.sink.rules.clear()
    for proxy in running.proxies.values():
        proxy.heal()
    for server in (running.stack.postgres, running.stack.valkey, *running.fleet.members):
        server.resume()
        if server.process is None or server.process.poll() is not None:
            await by_hand(server.start)
