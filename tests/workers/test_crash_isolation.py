"""Suspects have their process to themselves, in groups of bounded size, and for a bounded time."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers import Actor, Delivery, Done, Ignored, Outcome, crash_isolation, execute
from callboard_workers.testing import Workbench
from tests.workers.behaving import do
from tests.workers.ledger.rows import look, make

ORDINARY = "ordinary"


class Scene:
    """Attempts under way in one process, each until the test lets it end."""

    def __init__(self, bench: Workbench, engine: AsyncEngine) -> None:
        self.bench, self.engine = bench, engine
        self.inside: list[UUID] = []
        """Messages whose code runs, in the order in which it began."""
        self.gates: dict[UUID, asyncio.Event] = {}
        self.tasks: dict[UUID, asyncio.Task[Outcome]] = {}
        do["what"] = self.stay

    async def stay(self) -> None:
        id = do["context"].id
        self.inside.append(id)
        await self.gates[id].wait()

    async def begin(self, **columns: Any) -> UUID:
        id = await make(self.engine, actor="t.behave", **columns)
        self.gates[id] = asyncio.Event()
        delivery = Delivery(id=id, actor="t.behave", durable=True)
        self.tasks[id] = asyncio.create_task(execute(self.bench.runtime, delivery))
        return id

    async def suspects(self, count: int, **columns: Any) -> list[UUID]:
        return [await self.begin(**({"isolation": 1, "deaths": 1} | columns)) for _ in range(count)]

    async def end(self, *ids: UUID) -> None:
        for id in ids:
            self.gates[id].set()
        for id in ids:
            assert isinstance(await self.tasks[id], Done)

    async def until_inside(self, count: int) -> None:
        await eventually(lambda: len(self.inside) >= count)

    async def until_waiting(self, count: int) -> None:
        await eventually(lambda: self.bench.runtime.isolation.waiting >= count)

    async def settled(self) -> None:
        """Let everything happen that would happen by itself."""
        await asyncio.sleep(0.3)


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what it looks at has no event
            await asyncio.sleep(0.01)


@pytest.fixture
def scene(bench: Workbench, engine: AsyncEngine, behaving: Actor[..., Any]) -> Iterator[Scene]:
    made = Scene(bench, engine)
    yield made
    for task in made.tasks.values():
        task.cancel()


async def test_a_suspect_begins_once_all_others_have_ended_and_they_begin_once_it_has(scene: Scene) -> None:
    before = await scene.begin()
    await scene.until_inside(1)
    [suspect] = await scene.suspects(1)
    await scene.until_waiting(1)
    after = await scene.begin()
    await scene.settled()
    assert scene.inside == [before]
    assert (await look(scene.engine, after)).state == "queued", "what waits at the door is not claimed"
    await scene.end(before)
    await scene.until_inside(2)
    assert scene.inside[1] == suspect
    row = await look(scene.engine, suspect)
    assert (row.state, row.begun) == ("running", 1)
    await scene.settled()
    assert len(scene.inside) == 2
    await scene.end(suspect)
    await scene.end(after)
    row = await look(scene.engine, suspect)
    assert (row.state, row.isolation, row.begun, row.deaths) == ("done", None, None, 0)


async def test_a_message_without_a_row_waits_too(scene: Scene, behaving: Actor[..., Any]) -> None:
    [suspect] = await scene.suspects(1)
    await scene.until_inside(1)
    message = behaving.message()
    scene.gates[message.id] = asyncio.Event()
    scene.tasks[message.id] = asyncio.create_task(scene.bench.run(message))
    await scene.settled()
    assert scene.inside == [suspect]
    await scene.end(suspect)
    await scene.until_inside(2)
    await scene.end(message.id)


async def test_the_most_suspicious_run_first_and_each_group_is_no_larger_than_its_limit(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crash_isolation, "DRAIN_SECONDS", 600.0)
    monkeypatch.setattr(crash_isolation, "WINDOW_SECONDS", 600.0)
    gate = await scene.begin()
    await scene.until_inside(1)
    many: list[UUID] = []
    for count in range(1, 6):
        many += await scene.suspects(1, isolation=3)
        await scene.until_waiting(count)  # claims of several at once may be answered in another order
    [one] = await scene.suspects(1, isolation=1)
    await scene.until_waiting(6)
    await scene.end(gate)
    await scene.until_inside(2)
    await scene.settled()
    assert scene.inside[1:] == [one]
    await scene.end(one)
    await scene.until_inside(5)
    await scene.settled()
    assert set(scene.inside[2:]) == set(many[:3])
    assert [(await look(scene.engine, id)).begun for id in many] == [3, 3, 3, None, None]
    await scene.end(*many[:3])
    await scene.until_inside(7)
    assert [(await look(scene.engine, id)).begun for id in many[3:]] == [2, 2]
    await scene.end(*many[3:])


async def test_after_its_window_others_begin_beside_it_and_a_death_is_not_counted(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crash_isolation, "WINDOW_SECONDS", 0.1)
    [suspect] = await scene.suspects(1, deaths=2)
    await scene.until_inside(1)
    other = await scene.begin()
    await scene.until_inside(2)
    row = await look(scene.engine, suspect)
    assert (row.state, row.begun, row.isolation) == ("running", None, 1)
    [second] = await scene.suspects(1)
    await scene.settled()
    assert len(scene.inside) == 2, "the first is one of the others by now"
    await scene.end(suspect, other)
    await scene.until_inside(3)
    await scene.end(second)


async def test_where_the_process_is_never_empty_suspects_run_beside_others_uncounted(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crash_isolation, "DRAIN_SECONDS", 0.02)
    long = await scene.begin()
    await scene.until_inside(1)
    [suspect] = await scene.suspects(1)
    await scene.until_inside(2)
    row = await look(scene.engine, suspect)
    assert (row.state, row.begun, row.isolation) == ("running", None, 1)
    await scene.end(long, suspect)


async def test_one_that_is_canceled_while_it_waits_holds_nobody_up(scene: Scene) -> None:
    [first] = await scene.suspects(1)
    await scene.until_inside(1)
    second, third = await scene.suspects(2)
    await scene.until_waiting(2)
    await scene.bench.runtime.ledger.cancel(second)
    scene.tasks[third].cancel()
    after = await scene.begin()
    await scene.end(first)
    assert isinstance(await scene.tasks[second], Ignored)
    await scene.until_inside(2)
    assert scene.inside[1] == after
    assert (await look(scene.engine, third)).state == "queued"
    await scene.end(after)


async def test_an_attempt_knows_that_its_last_worker_died(scene: Scene) -> None:
    [suspect] = await scene.suspects(1)
    await scene.until_inside(1)
    assert do["context"].redelivered
    await scene.end(suspect)
