"""The test kit does what a worker does."""

from collections.abc import Iterator
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from workers import Backoff, Done, Retry, RetryAt, Snooze, WorkersError, actor, current, registry
from workers.testing import run_now, workbench


@pytest.fixture(autouse=True)
def actors() -> Iterator[None]:
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

    yield
    for name in ("k.parent", "k.child", "k.endless", "k.sleepy"):
        registry.discard(name)


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


@pytest.mark.parametrize("name", ["k.endless", "k.sleepy"])
async def test_drain_has_an_end(name: str) -> None:
    async with workbench() as bench:
        await registry.get(name).send()
        with pytest.raises(WorkersError, match="still not empty"):
            await bench.drain(limit=50)
