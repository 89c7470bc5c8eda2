"""What follows a message is put by the statement that settles it: neither lost nor twice, whoever settles it."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from callboard_workers import (
    Actor,
    BrokerUnavailable,
    Cron,
    Dead,
    DeclarationError,
    DurableOnly,
    Message,
    Pipeline,
    State,
    Unique,
    actor,
    current,
    execute,
    group,
    pipeline,
    registry,
)
from callboard_workers.testing import Workbench, doorbell
from tests.workers.ledger.rows import PAST, change, look

Seen = list[tuple[str, Any]]


@pytest.fixture
def seen() -> Iterator[Seen]:
    """What ran, with what; every actor named `t.…` is forgotten after the test."""
    yield []
    for each in list(registry):
        if each.name.startswith("t."):
            registry.discard(each.name)


@pytest.fixture
def says(seen: Seen) -> Callable[..., Actor[Any, Any]]:
    """Makes an actor that notes its argument and returns it with its own name."""

    def make(name: str, **options: Any) -> Actor[Any, Any]:
        async def say(what: Any = None) -> Any:
            seen.append((name, what))
            return f"{what}{name}"

        return actor(name=f"t.{name}", **options)(say)

    return make


async def put(engine: AsyncEngine, composed: Any) -> list[Message]:
    async with AsyncSession(engine) as session:
        messages: list[Message] = await composed.enqueue(session)
        await session.commit()
    return messages


async def states(engine: AsyncEngine, messages: list[Message]) -> list[str]:
    async with engine.connect() as connection:
        found = await connection.execute(sa.text("SELECT id, state FROM messages"))
        by_id = {row.id: row.state for row in found}
    return [by_id.get(message.id, "-") for message in messages]


async def test_each_step_is_given_the_result_of_the_one_before(
    engine: AsyncEngine, bench: Workbench, seen: Seen, says: Any
) -> None:
    a, b, c = says("a"), says("b"), says("c")
    steps = await put(engine, a.message(1) | b.message() | c)
    assert await states(engine, steps) == ["queued", "-", "-"]
    await bench.drain()  # the worker that settles a step rings for the next
    assert seen == [("a", 1), ("b", "1a"), ("c", "1ab")]
    assert await states(engine, steps) == ["done"] * 3
    rows = [await look(engine, step.id) for step in steps]
    assert [row.headers.get("parent_id") for row in rows] == [None, str(steps[0].id), str(steps[1].id)]
    assert [row.headers.get("root_id") for row in rows[1:]] == [str(steps[0].id)] * 2


async def test_the_result_comes_after_a_steps_own_arguments(engine: AsyncEngine, bench: Workbench, says: Any) -> None:
    got: list[Any] = []

    @actor(name="t.store")
    async def store(where: str, what: str, *, loud: bool = False) -> None:
        got.append((where, what, loud, current().attempt))

    await put(engine, pipeline([says("a").message("x"), store.step("reports", loud=True)]))
    await bench.drain()
    assert got == [("reports", "xa", True, 1)]


async def test_a_step_without_room_for_a_result_is_given_none(engine: AsyncEngine, bench: Workbench, says: Any) -> None:
    ran: list[UUID] = []

    @actor(name="t.beep")
    async def beep() -> None:
        ran.append(current().id)

    await put(engine, says("a").message("x") | beep.message())
    await bench.drain()
    assert len(ran) == 1


async def test_a_step_that_settles_twice_puts_the_next_once(engine: AsyncEngine, bench: Workbench, says: Any) -> None:
    steps = await put(engine, says("a").message(1) | says("b"))
    ledger = bench.runtime.ledger
    claim = await ledger.claim(steps[0].id, "w")
    assert claim is not None
    from callboard_workers import Done

    await asyncio.gather(*(ledger.settle(claim, Done(result=1), keep=True) for _ in range(5)))
    async with engine.connect() as connection:
        assert await connection.scalar(sa.text("SELECT count(*) FROM messages")) == 2


async def test_what_is_rolled_back_was_never_composed(engine: AsyncEngine, bench: Workbench, says: Any) -> None:
    async with AsyncSession(engine) as session:
        await group([says("a").message(1)], then=says("b")).enqueue(session)
        await (says("c").message(1) | says("b")).enqueue(session)
        await session.rollback()
    assert await bench.drain() == []
    async with engine.connect() as connection:
        for table in ("messages", "message_groups"):
            assert await connection.scalar(sa.text(f"SELECT count(*) FROM {table}")) == 0


async def test_a_dead_step_stops_the_pipeline_and_requeueing_it_goes_on(
    engine: AsyncEngine, bench: Workbench, seen: Seen, says: Any
) -> None:
    ill = [True]

    @actor(name="t.ill", max_retries=0)
    async def fall(what: str) -> str:
        if ill[0]:
            raise Dead("ill")
        return what

    steps = await put(engine, says("a").message(1) | fall | says("b"))
    await bench.drain()
    assert await states(engine, steps) == ["done", "dead", "-"]
    ill[0] = False
    await bench.runtime.ledger.requeue([steps[1].id], by="me")
    await bench.sweep()
    await bench.drain()
    assert await states(engine, steps) == ["done"] * 3
    assert seen[-1] == ("b", "1a")


@pytest.mark.parametrize("how", ["canceled", "expired"])
async def test_what_can_no_longer_come_says_so(engine: AsyncEngine, bench: Workbench, says: Any, how: str) -> None:
    composed = group(
        [says("a").message(1) | says("b") | says("c"), says("d").message(2)], then=says("e").message() | says("f")
    )
    messages = await put(engine, composed)
    first = composed.members[0].steps
    if how == "canceled":
        await bench.runtime.ledger.cancel(first[0].id)
    else:
        await change(engine, first[0].id, expires_at=PAST)
        await bench.sweep()
    assert await states(engine, list(first)) == [how, "canceled", "canceled"]
    assert await states(engine, messages) == ["canceled", "queued", "canceled", "canceled"]
    row = await look(engine, messages[-1].id)
    assert row.error["type"] == "Abandoned"
    assert str(first[0].id) in row.error["message"]
    await bench.drain()  # the other member goes its way, and nothing more comes of it
    assert await states(engine, messages) == ["canceled", "done", "canceled", "canceled"]


async def test_a_group_calls_back_once_with_the_results_in_order(
    engine: AsyncEngine, bench: Workbench, seen: Seen, says: Any
) -> None:
    a, merge = says("a"), says("merge")
    composed = group([a.message(number) for number in range(5)] + [a.message(5) | says("b")], then=merge)
    messages = await put(engine, composed)
    bench.broker.waiting.rotate(2)
    runs = [execute(bench.runtime, bench.broker.waiting.popleft()) for _ in range(len(bench.broker.waiting))]
    await asyncio.gather(*runs)  # settled by several statements at once
    await bench.drain()
    assert seen[-1] == ("merge", ["0a", "1a", "2a", "3a", "4a", "5ab"])
    assert [name for name, _ in seen].count("merge") == 1
    assert await states(engine, messages) == ["done"] * 7


async def test_what_follows_a_group_or_a_dead_message_is_rung_for_by_the_worker_that_settles_it(
    engine: AsyncEngine, bench: Workbench, seen: Seen, says: Any
) -> None:
    @actor(name="t.mourn")
    async def mourn(id: UUID, error: dict[str, Any]) -> None:
        seen.append(("mourn", error["reason"]))

    @actor(name="t.dies", max_retries=0, on_dead=mourn)
    async def dies() -> None:
        raise Dead("ill")

    a = says("a")
    await put(engine, group([a.message(1), a.message(2)], then=says("merge")))
    await put(engine, group([a.message(3), dies.message()], then=says("never")))
    await bench.drain()  # the sweeper has no part in it
    assert seen[:3] == [("a", 1), ("a", 2), ("a", 3)]
    assert {name for name, _ in seen[3:]} == {"merge", "mourn"}
    assert len(seen) == 5


async def test_groups_that_end_in_many_processes_at_once_each_call_back_once(
    engine: AsyncEngine, bench: Workbench, seen: Seen, says: Any
) -> None:
    a, merge = says("a"), says("merge")
    callbacks = []
    for number in range(6):
        messages = await put(engine, group([a.message(number) for _ in range(8)], then=merge))
        callbacks.append(messages[-1])
    waiting = list(bench.broker.waiting)
    bench.broker.waiting.clear()
    from callboard_workers import Runtime
    from callboard_workers.testing import MemoryBroker

    others = [Runtime(engine, MemoryBroker()) for _ in range(3)]
    shuffled = [waiting[at::8] for at in range(8)]
    turns = [delivery for part in shuffled for delivery in part]
    await asyncio.gather(*(execute(others[at % 3], delivery) for at, delivery in enumerate(turns)))
    assert await states(engine, callbacks) == ["queued"] * 6
    for callback in callbacks:
        await execute(bench.runtime, doorbell(callback))
    assert sorted(what for name, what in seen if name == "merge") == [[f"{n}a"] * 8 for n in range(6)]
    for other in others:
        await other.stop()


async def test_who_follows_is_put_with_the_settling(engine: AsyncEngine, bench: Workbench, seen: Seen) -> None:
    @actor(name="t.cheer")
    async def cheer(result: str) -> None:
        seen.append(("cheer", result))

    @actor(name="t.mourn")
    async def mourn(id: UUID, error: dict[str, Any]) -> None:
        seen.append(("mourn", (id, error["type"], error["reason"])))

    @actor(name="t.work", on_success=cheer, on_dead=mourn, max_retries=0)
    async def work(well: bool) -> str:
        if not well:
            raise Dead("no luck")
        return "fine"

    async with AsyncSession(engine) as session:
        await work.enqueue(session, True)
        unlucky = await work.enqueue(session, False)
        await session.commit()
    await bench.drain()
    await bench.sweep()
    await bench.drain()
    assert sorted(seen) == [("cheer", "fine"), ("mourn", (unlucky.id, "Dead", "no luck"))]


async def test_a_quarantined_message_is_mourned_each_time(engine: AsyncEngine, bench: Workbench, seen: Seen) -> None:
    @actor(name="t.mourn")
    async def mourn(id: UUID, error: dict[str, str]) -> None:
        seen.append((error["type"], id))

    @actor(name="t.killer", on_dead=mourn, max_crashes=1)
    async def killer() -> None: ...

    async with AsyncSession(engine) as session:
        message = await killer.enqueue(session)
        await session.commit()
    bench.broker.waiting.clear()
    for _ in range(2):
        assert await bench.runtime.ledger.claim(message.id, "w") is not None
        await change(engine, message.id, lease_until=PAST, begun=1)
        await bench.sweep()
        await bench.sweep()
        await bench.drain()
        await bench.runtime.ledger.requeue([message.id], by="me")
    assert seen == [("Quarantined", message.id)] * 2


async def test_a_direct_message_sends_what_follows_first(bench: Workbench, seen: Seen, says: Any) -> None:
    @actor(name="t.mourn")
    async def mourn(id: UUID, error: dict[str, Any]) -> None:
        seen.append(("mourn", (id, error["reason"])))

    @actor(name="t.work", on_success=says("b"), on_dead=mourn)
    async def work(well: bool) -> str:
        if not well:
            raise Dead("no luck")
        return "fine"

    await work.send(True)
    unlucky = await work.send(False)
    await bench.drain()
    assert sorted(seen) == [("b", "fine"), ("mourn", (unlucky.id, "no luck"))]


async def test_if_what_follows_cannot_be_sent_the_message_is_not_acknowledged(bench: Workbench, says: Any) -> None:
    @actor(name="t.work", on_success=says("b"))
    async def work() -> str:
        return "fine"

    async def publish(messages: Any) -> None:
        raise BrokerUnavailable("gone")

    message = await work.send()
    bench.broker.publish = publish  # type: ignore[method-assign]
    with pytest.raises(BrokerUnavailable):
        await bench.run(message)


async def test_what_only_rows_can_hold_is_not_sent(bench: Workbench, says: Any) -> None:
    a, b = says("a"), says("b")
    for refused in (a.message(1) | b, group([a.message(1)], then=b), group([a.message(1) | b])):
        with pytest.raises(DurableOnly, match="enqueue"):
            await refused.send()
    assert bench.broker.published == []
    await group([a.message(1), b.message(2)]).send()
    assert len(bench.broker.published) == 2


def test_what_cannot_be_a_step_is_refused(says: Any) -> None:
    @actor(name="t.needs")
    async def needs(x: int, y: int) -> None: ...

    a, unique = says("a"), says("u", unique=True)
    with pytest.raises(TypeError, match="missing a required argument: 'y'"):
        needs.message(1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="missing"):
        a.message() | needs.step()
    with pytest.raises(TypeError, match="first step is given no result"):
        Pipeline([needs.step(1), a])
    with pytest.raises(TypeError, match="bears a key"):
        a.message() | unique
    with pytest.raises(TypeError, match="no step"):
        a.message() | 5
    with pytest.raises(ValueError, match="nothing"):
        group([])


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"on_success": 5}, "on_success: 5 is not an actor"),
        ({"on_dead": "t.a"}, "on_dead: 't.a' is not an actor"),
    ],
)
def test_followers_are_checked_where_they_are_declared(options: Any, fault: str, says: Any) -> None:
    with pytest.raises(DeclarationError, match=fault):
        says("x", **options)


def test_a_follower_must_fit_what_it_is_given(says: Any) -> None:
    @actor(name="t.two")
    async def two(x: int, y: int) -> None: ...

    with pytest.raises(DeclarationError, match=r"called with \(result\)"):
        says("x", on_success=two)
    with pytest.raises(DeclarationError, match="id of the dead message"):
        says("x", on_dead=says("one"))
    with pytest.raises(DeclarationError, match="could be skipped"):
        says("x", on_success=says("u", unique=Unique()))
    says("x", on_dead=two, on_success=says("ok"), cron=Cron("* * * * *"))
    assert State.DONE  # nothing was sent
