"""Fixtures for pytest and pytest-asyncio.

Write `pytest_plugins = ["callboard_workers.testing.plugin"]` into your topmost conftest.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.actors.actor import Registry
from callboard_workers.testing.declared import forgetting
from callboard_workers.testing.harness import Workbench, workbench


@pytest.fixture
def bench_engine(request: pytest.FixtureRequest) -> AsyncEngine | None:
    """The engine of `bench`: your fixture `engine` if there is one, else none, and no rows. Override it at will."""
    try:
        engine: AsyncEngine = request.getfixturevalue("engine")
    except pytest.FixtureLookupError as error:
        if error.argname != "engine":
            raise
        return None
    return engine


@pytest_asyncio.fixture
async def bench(bench_engine: AsyncEngine | None) -> AsyncIterator[Workbench]:
    """A workbench on the test's loop."""
    async with workbench(bench_engine) as made:
        yield made


@pytest.fixture
def declared() -> Iterator[Registry]:
    """The registry; what the test declares is forgotten after it."""
    with forgetting() as registry:
        yield registry
