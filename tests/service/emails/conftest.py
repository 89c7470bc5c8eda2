"""Workers in the hand, each beside a mail server of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.testing import workbench
from service.settings import Settings
from tests.faults.sink import Sink
from tests.service.emails.postman import MakePost, Post


@pytest.fixture
def post_to(engine: AsyncEngine) -> MakePost:
    @asynccontextmanager
    async def make(sink: Sink, **environ: str) -> AsyncIterator[Post]:
        where = {"SMTP_HOST": sink.host, "SMTP_PORT": str(sink.port), "MAIL_FROM": "Callboard <mail@callboard.example>"}
        async with workbench(engine) as bench:
            bench.runtime.state["settings"] = Settings.from_env({**where, **environ})
            yield Post(engine, bench, sink)

    return make


@pytest.fixture
async def post(post_to: MakePost) -> AsyncIterator[Post]:
    async with Sink() as sink, post_to(sink) as made:
        yield made
