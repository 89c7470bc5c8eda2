"""The test kit does what a worker does."""

import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from callboard_workers import Backoff, Done, Registry, Retry, RetryAt, Snooze, WorkersError, actor, current, registry
from callboard_workers.testing import run_now, workbench


@pytest.fixture(autouse=True)
def actors(declared: Registry) -> None:
    @actor(name="k.parent", backoff=Backoff(min=0, max=0))
    async def parent(id: UUID, tries: int = 0) -> int:
        if current().attempt <= tries:
            raise Retry
        await registry.get("k.child").send(str(id))
        return current().attempt

    @actor(name="k.child")
    async def child(id: str) -> None:
        current().report(seen=id)

    @actor(name="k.endless")
    async def endless() -> None:
        await registry.get("k.endless").send()

    @actor(name="k.sleepy")
    async def sleepy() -> None:
        raise Snooze(1)


async def test_run_now_is_one_attempt_with_typed_arguments_and_its_outcome() -> None:
    async with workbench():
        assert await run_now(registry.get("k.parent"), uuid7()) == Done(result=1)
        assert isinstance(await run_now(registry.get("k.parent"), uuid7(), 1), RetryAt)


async def test_drain_runs_what_was_sent_and_what_that_sends() -> None:
    parent, child = registry.get("k.parent"), registry.get("k.child")
    async with workbench() as bench:
        id = uuid7()
        message = await parent.send(id, 2)
        ran = await bench.drain()
        assert [type(outcome) for _, outcome in ran] == [RetryAt, RetryAt, Done, Done]
        assert bench.assert_sent(parent, id, 2) == message
        sent = bench.assert_sent(child, str(id))
        assert sent.headers["parent_id"] == str(message.id)
        assert sent.headers["root_id"] == str(message.id)
        with pytest.raises(AssertionError, match="was not sent"):
            bench.assert_sent(child, "another")


async def test_drain_has_an_end() -> None:
    async with workbench() as bench:
        await registry.get("k.endless").send()
        with pytest.raises(WorkersError, match="still not empty"):
            await bench.drain(limit=50)


async def test_time_that_never_comes_to_an_end_is_told() -> None:
    async with workbench() as bench:
        await registry.get("k.sleepy").send()
        with pytest.raises(WorkersError, match="put itself off for ever"):
            await bench.finish(limit=50)
        with pytest.raises(WorkersError, match="advance less"):
            await bench.advance(1_000, limit=50)
        with pytest.raises(ValueError, match="does not go back"):
            await bench.advance(-1)


async def test_nothing_sent_is_told_from_something() -> None:
    child = registry.get("k.child")
    async with workbench() as bench:
        bench.assert_not_sent(child)
        await child.send("a")
        with pytest.raises(AssertionError, match=r"k\.child was sent"):
            bench.assert_not_sent(child)


async def test_without_an_engine_there_are_no_rows() -> None:
    async with workbench() as bench:
        with pytest.raises(WorkersError, match=r"workbench\(engine\)"):
            await bench.state(uuid7())


PLUGGED = """
import pytest
from callboard_workers import Done, actor
from callboard_workers.testing import Workbench

pytest_plugins = ["callboard_workers.testing.plugin"]

async def test_bench(bench: Workbench, declared):
    @actor(name="p.hello")
    async def hello(name: str) -> str:
        return f"hello {name}"

    await hello.options(delay=60).send("Ada")
    assert await bench.drain() == []
    assert [outcome for _, outcome in await bench.advance(61)] == [Done(result="hello Ada")]

def test_forgotten(declared):
    assert "p.hello" not in declared
"""


def test_the_plugin_brings_a_bench_without_any_server(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("")
    (tmp_path / "test_it.py").write_text(PLUGGED)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto", str(tmp_path)]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert "2 passed" in ran.stdout, ran.stdout + ran.stderr
