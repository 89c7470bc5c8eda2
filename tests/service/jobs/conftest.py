"""An organization that may ask for jobs, and a worker in the hand beside the API, over one database."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.testing import workbench
from service.settings import Settings
from service.slices import import_actors
from tests.service.jobs.bench import Bench, MakeBench


@pytest.fixture
async def acme(api: httpx.AsyncClient) -> str:
    """The id of an organization with the plan `team`, trusted, with ten jobs a month."""
    body = {"plan": "team", "trust_score": 80, "job_limit": 10}
    answer = await api.put("/v1/organizations/acme", json=body)
    assert answer.status_code == 200, answer.text
    return "acme"


@pytest.fixture
def bench_of(engine: AsyncEngine) -> MakeBench:
    """Makes a worker in the hand, on the test's own loop; `bench_of(LLM_BASE_URL=…)`."""
    import_actors()

    @asynccontextmanager
    async def make(**environ: str) -> AsyncIterator[Bench]:
        async with workbench(engine) as found:
            found.runtime.state["settings"] = Settings.from_env(environ)
            yield Bench(engine, found.runtime)

    return make


Sql = Callable[..., Awaitable[list[dict[str, Any]]]]


@pytest.fixture
def sql(engine: AsyncEngine) -> Sql:
    """Runs a statement and commits; its rows."""

    async def run(statement: str, **values: Any) -> list[dict[str, Any]]:
        async with engine.begin() as connection:
            found = await connection.execute(text(statement), values)
            return [dict(row) for row in found.mappings()] if found.returns_rows else []

    return run
