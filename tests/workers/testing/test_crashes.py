"""A worker that dies anywhere loses nothing, does nothing twice past its fence, and is given up in the end."""

import contextlib
from typing import Any, get_args

import pytest
from prometheus_client import REGISTRY
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from callboard_workers import Actor, Done, Ignored, Message, Registry, State, actor, current
from callboard_workers.testing import Crashed, Point, Workbench, die
from tests.workers.ledger.rows import look, tries

ran: list[str] = []


@pytest.fixture(autouse=True)
def fresh(declared: Registry) -> None:
    """Actors of one test are not those of the next, nor is what they did."""
    ran.clear()


def charge(**options: Any) -> Actor[..., Any]:
    @actor(name="crash.charge", **options)
    async def charge() -> None:
        ran.append("begun")
        try:
            await current().fence()
        except BaseException:
            ran.append("unwound")
            raise
        ran.append("charged")

    return charge


async def enqueue(bench: Workbench, sender: Any, *args: Any) -> Message:
    async with AsyncSession(bench.runtime.engine) as session:
        message: Message = await sender.enqueue(session, *args)
        await session.commit()
    return message


BEFORE: tuple[Point, ...] = ("before claim", "after claim", "before fence")


@pytest.mark.parametrize("at", BEFORE)
async def test_before_its_fence_a_dead_attempt_runs_again(bench: Workbench, engine: AsyncEngine, at: Point) -> None:
    message = await enqueue(bench, charge())
    bench.crash(at)
    [(id, crashed)] = await bench.drain()
    assert (id, crashed) == (message.id, Crashed(at=at, reason=f"its worker died: {at}"))
    assert "charged" not in ran
    assert await bench.state(message) is (State.QUEUED if at == "before claim" else State.RUNNING)
    assert Done in [type(outcome) for _, outcome in await bench.advance(120)]
    assert ran.count("charged") == 1
    row = await look(engine, message.id)
    assert (row.state, row.crashes, row.attempts) == ("done", 0, 0)
    assert [each.outcome for each in await tries(engine, message.id)] == ["interrupted"] * (at != "before claim")


@pytest.mark.parametrize("at", ["after fence", "before settle"])
async def test_past_its_fence_a_dead_attempt_is_in_doubt_and_never_runs_again(bench: Workbench, at: Point) -> None:
    message = await enqueue(bench, charge())
    bench.crash(at)
    await bench.drain()
    await bench.advance(300)
    assert await bench.state(message) is State.RUNNING  # the answer may still come
    await bench.advance(3600)
    assert await bench.state(message) is State.UNCERTAIN
    assert ran.count("begun") == 1


async def test_where_the_policy_is_to_resend_a_doubt_runs_again_after_its_grace(bench: Workbench) -> None:
    message = await enqueue(bench, charge(uncertain="resend"))
    bench.crash("after fence")
    await bench.drain()
    await bench.finish()
    assert await bench.state(message) is State.DONE
    assert ran.count("begun") == 2


async def test_what_is_settled_is_not_run_for_a_bell_that_comes_again(bench: Workbench) -> None:
    message = await enqueue(bench, charge())
    bench.crash("after settle")
    await bench.drain()
    assert await bench.state(message) is State.DONE
    assert [type(outcome) for _, outcome in await bench.finish()] == [Ignored]
    assert ran.count("charged") == 1


async def test_a_message_that_kills_its_workers_is_quarantined(bench: Workbench, engine: AsyncEngine) -> None:
    @actor(name="crash.poison", max_crashes=2)
    async def poison() -> None:
        die()

    labels = {"name": "crash.poison", "queue_name": "default"}
    before = REGISTRY.get_sample_value("celery_task_redelivered_total", labels) or 0
    message = await enqueue(bench, poison)
    await bench.finish()
    row = await look(engine, message.id)
    assert (row.state, row.crashes, row.error["type"]) == ("dead", 2, "Quarantined")
    outcomes = [each.outcome for each in await tries(engine, message.id)]
    assert outcomes == ["interrupted", "crashed", "crashed"]  # the first time, it was not known to be alone
    assert REGISTRY.get_sample_value("celery_task_redelivered_total", labels) == before + 3  # `lost` was called


@pytest.mark.parametrize("at", [at for at in get_args(Point) if "fence" not in at])
async def test_without_a_row_a_message_is_delivered_again_and_its_crash_counted(bench: Workbench, at: Point) -> None:
    @actor(name="crash.direct")
    async def direct() -> None:
        ran.append(f"{current().crashes} {current().redelivered}")

    await direct.send()
    bench.crash(at, actor=direct)
    assert [type(outcome) for _, outcome in await bench.drain()] == [Crashed]
    assert [type(outcome) for _, outcome in await bench.finish()] == [Done]
    assert ran[-1] == "1 True"
    assert len(ran) == (2 if at in {"before settle", "after settle"} else 1)


async def test_without_a_row_what_kills_its_workers_is_given_up(bench: Workbench) -> None:
    @actor(name="crash.direct")
    async def direct() -> None:
        die()

    message = await direct.send()
    await bench.finish()
    [(dead, why)] = bench.broker.dead
    assert (dead.id, why) == (message.id, "its worker died 3 times while it ran")


async def test_without_a_row_the_actor_says_how_often_and_middleware_is_told(bench: Workbench) -> None:
    @actor(name="crash.fragile", max_crashes=2)
    async def fragile() -> None:
        die()

    labels = {"name": "crash.fragile", "queue_name": "default"}
    await fragile.send()
    await bench.finish()
    [(_, why)] = bench.broker.dead
    assert why == "its worker died 2 times while it ran"
    assert REGISTRY.get_sample_value("celery_task_redelivered_total", labels) == 2  # `lost` was called


async def test_an_actor_that_catches_everything_is_dead_all_the_same(bench: Workbench) -> None:
    @actor(name="crash.stubborn")
    async def stubborn() -> None:
        with contextlib.suppress(BaseException):
            await current().fence()

    message = await enqueue(bench, stubborn)
    bench.crash("before fence")
    assert [type(outcome) for _, outcome in await bench.drain()] == [Crashed]
    assert await bench.state(message) is State.RUNNING


async def test_a_crash_is_of_the_actor_and_as_often_as_wanted(bench: Workbench) -> None:
    @actor(name="crash.other")
    async def other() -> None: ...

    first = charge()
    bench.crash("after claim", actor=first, times=2)
    await enqueue(bench, other)
    message = await enqueue(bench, first)
    assert [type(outcome) for _, outcome in await bench.drain()] == [Done, Crashed]
    await bench.finish()
    assert await bench.state(message) is State.DONE
    assert [type(outcome) for id, outcome in bench.outcomes if id == message.id].count(Crashed) == 2


async def test_an_unknown_point_is_refused(bench: Workbench) -> None:
    with pytest.raises(ValueError, match="before claim, after claim"):
        bench.crash("later")  # type: ignore[arg-type]
