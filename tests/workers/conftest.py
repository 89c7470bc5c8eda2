"""What the tests of the library share."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.workers import behaving as behaviour
from workers import Actor, actor, registry
from workers.testing import Workbench, workbench


@pytest.fixture
def behaving() -> Iterator[Actor[..., Any]]:
    """The actor `t.behave`; every actor named `t.…` is forgotten after the test."""
    behaviour.do.clear()
    yield actor(**behaviour.OPTIONS)(behaviour.behave)
    for each in list(registry):
        if each.name.startswith("t."):
            registry.discard(each.name)


@pytest.fixture
async def bench(engine: AsyncEngine) -> AsyncIterator[Workbench]:
    """A workbench with a ledger on a fresh database."""
    async with workbench(engine) as made:
        yield made
