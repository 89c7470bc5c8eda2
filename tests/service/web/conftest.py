"""`shelf`: a client of an application whose one slice is the shelf of books."""

from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest

from service.settings import Settings
from tests.service.conftest import MakeKey, client_of
from tests.service.web.shelf import ISOLATION, TABLE, router


@pytest.fixture
async def books(database: str) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute(TABLE)
    await connection.execute(ISOLATION)
    await connection.close()


@pytest.fixture
async def shelf(settings: Settings, make_key: MakeKey, books: None) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(settings, routers=[router]) as client:
        client.headers["Authorization"] = f"Bearer {await make_key('books:*')}"
        yield client
