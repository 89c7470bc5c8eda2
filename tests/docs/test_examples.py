"""The Python of the documents is run: each block in order, on real Postgres, and what it sends is done."""

import ast
import datetime as dt
import inspect
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from uuid_utils.compat import uuid7

import callboard_workers
import callboard_workers.testing
from callboard_workers import Correlation, Done, actor, correlation, current
from callboard_workers.testing import Workbench, workbench
from service.db.engine import session as attempt_session
from service.settings import Settings
from tests.layout.repository import ROOT, tracked_files

BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = [path for path in tracked_files() if path.suffix == ".md" and BLOCK.search((ROOT / path).read_text("utf-8"))]
RUN = {Path("README.md"), *(Path("docs", f"{name}.md") for name in ("actors", "emails", "testing", "webhooks"))}
RUN |= {path for path in PAGES if path.name.startswith("migrating-from-")}


class Rejected(Exception):
    """What a mail server may say in an example."""


class Provider:
    """Takes money in an example, and counts how often."""

    def __init__(self) -> None:
        self.charged: list[Any] = []

    async def charge(self, order: Any) -> None:
        assert current().fenced
        self.charged.append(order)


class Cast:
    """The names that the examples of a page mention without defining them."""

    def __init__(self, engine: AsyncEngine, settings: Settings) -> None:
        self.engine, self.settings = engine, settings
        public = {name: getattr(callboard_workers, name) for name in callboard_workers.__all__}
        kit = {name: getattr(callboard_workers.testing, name) for name in ("run_now", "workbench")}
        self.names: dict[str, Any] = {
            **public,
            **kit,
            "__name__": "example",
            "dt": dt,
            "UUID": UUID,
            "Annotated": Annotated,
            "AsyncSession": AsyncSession,
            "Rejected": Rejected,
            "email": SimpleNamespace(id=uuid7()),
            "order_id": uuid7(),
            "order": "order-7",
            "provider": Provider(),
            "url": "https://shop.example/reset",
            "engine": engine,
        }

    async def run(self, block: str) -> None:
        """Run one block, then what it sent; everything must be done."""
        async with self._worker() as bench, AsyncSession(self.engine) as session:
            declares = "Depends(session)" in block
            self.names["session"] = attempt_session if declares else session
            if "current().fence" in block:
                await self._in_an_attempt(bench, session, block)
            else:
                await self._execute(block)
            await session.commit()
            ran = await bench.drain()
        assert [outcome for _, outcome in ran if not isinstance(outcome, Done)] == []

    async def _execute(self, block: str) -> None:
        code = compile(block, "example.py", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        waiting = eval(code, self.names)
        if inspect.isawaitable(waiting):
            await waiting

    async def _in_an_attempt(self, bench: Workbench, session: AsyncSession, block: str) -> None:
        @actor(name="example.attempt")
        async def attempt() -> None:
            await self._execute(block)

        await attempt.enqueue(session)
        await session.commit()
        assert [type(outcome) for _, outcome in await bench.drain()] == [Done]

    @asynccontextmanager
    async def _worker(self) -> AsyncIterator[Workbench]:
        mark = correlation.set(Correlation(request_id="docs", tenant_id=uuid7()))
        try:
            async with workbench(self.engine) as bench:
                bench.runtime.state["settings"] = self.settings
                yield bench
        finally:
            correlation.reset(mark)


@pytest.fixture
def cast(engine: AsyncEngine, mailbox: Any) -> Cast:
    """A cast whose mail goes to the test's mailbox."""
    where = {"SMTP_HOST": mailbox.host, "SMTP_PORT": str(mailbox.port), "MAIL_FROM": "Shop <mail@shop.example>"}
    return Cast(engine, Settings.from_env(where))


def blocks(page: Path) -> list[str]:
    return BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", sorted(RUN), ids=str)
async def test_the_examples_of_a_page_work(page: Path, cast: Cast) -> None:
    found = blocks(page)
    assert found
    for block in found:
        await cast.run(block)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_python_block_is_python(page: Path) -> None:
    for block in blocks(page):
        compile(block, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


async def test_the_mails_of_the_example_arrive(cast: Cast, mailbox: Any) -> None:
    for block in blocks(Path("docs/emails.md")):
        await cast.run(block)
    assert len(await mailbox.wait(2)) == 2


async def test_the_two_sides_of_the_celery_example_do_the_same(cast: Cast, capsys: pytest.CaptureFixture[str]) -> None:
    before, after, send = blocks(Path("docs/migrating-from-celery.md"))
    order_id = cast.names["order_id"]
    await cast.run(before)
    cast.names["ship"].apply(args=(order_id,), task_id="an-id")
    assert capsys.readouterr().out == f"an-id 0 {order_id}\n"
    await cast.run(after)
    await cast.run(send)
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.endswith(f" 0 {order_id}")]
    assert UUID(line.split()[0])
