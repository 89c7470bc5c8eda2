"""Time passes when a test says so: delays, retries, back-off, expiry, leases, limits and crons keep it, rows or not."""

import asyncio
import datetime as dt
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from callboard_workers import (
    Actor,
    Backoff,
    Cron,
    Dead,
    DeadLetter,
    Debounce,
    Done,
    Expired,
    Message,
    Registry,
    Retry,
    RetryAt,
    Snooze,
    Snoozed,
    State,
    Unique,
    WorkersError,
    actor,
    current,
)
from callboard_workers.testing import Workbench, passing
from tests.workers.ledger.rows import look

ran: list[Any] = []


@pytest.fixture(autouse=True)
def fresh(declared: Registry) -> None:
    """Actors of one test are not those of the next, nor is what they did."""
    ran.clear()


def note(**options: Any) -> Actor[Any, Any]:
    @actor(name="time.note", **options)
    async def note(what: Any = None) -> Any:
        ran.append(what)
        if isinstance(what, str) and what.startswith("retry"):
            raise Retry(reason=what)
        if what == "snooze" and current().snoozes < 2:
            raise Snooze(3600)
        return what

    return note


async def give(bench: Workbench, durable: bool, sender: Any, *args: Any) -> Message:
    """Send a message with or without a row."""
    if not durable:
        sent: Message = await sender.send(*args)
        return sent
    async with AsyncSession(bench.runtime.engine) as session:
        message: Message = await sender.enqueue(session, *args)
        await session.commit()
    return message


both = pytest.mark.parametrize("durable", [True, False], ids=["durable", "direct"])


@both
async def test_a_delay_is_waited_for(bench: Workbench, durable: bool) -> None:
    add = note()
    await give(bench, durable, add.options(delay=7200), 2)
    await give(bench, durable, add.options(delay=3600), 1)
    assert await bench.drain() == []
    assert await bench.advance(3000) == []
    assert [type(outcome) for _, outcome in await bench.advance(dt.timedelta(hours=1))] == [Done]
    assert ran == [1]
    await bench.advance(3600)
    assert ran == [1, 2]


@both
async def test_a_moment_is_one_of_the_clock_of_the_bench(bench: Workbench, durable: bool) -> None:
    add = note()
    await bench.advance(86_400)
    at = bench.clock.now() + dt.timedelta(hours=2)
    await give(bench, durable, add.options(at=at), "at")
    assert await bench.advance(7_000) == []
    await bench.advance(300)
    assert ran == ["at"]


@both
async def test_retries_come_after_their_backoff_and_end_in_a_dead_letter(bench: Workbench, durable: bool) -> None:
    add = note(max_retries=3, backoff=Backoff(min=100, max=150))
    message = await give(bench, durable, add, "retry")
    assert [type(outcome) for _, outcome in await bench.drain()] == [RetryAt]
    assert [type(outcome) for _, outcome in await bench.finish()] == [RetryAt, RetryAt, DeadLetter]
    assert bench.clock.ahead <= 400
    if durable:
        assert await bench.state(message) is State.DEAD
    else:
        [(dead, why)] = bench.broker.dead
        assert (dead.id, why) == (message.id, "gave up after 4 attempts: retry")


@both
async def test_a_snooze_counts_nothing_and_comes_back(bench: Workbench, durable: bool) -> None:
    await give(bench, durable, note(max_retries=0), "snooze")
    assert [type(outcome) for _, outcome in await bench.finish()] == [Snoozed, Snoozed, Done]
    assert 7_100 < bench.clock.ahead < 7_300


async def test_what_the_machines_own_clock_makes_due_between_two_looks_is_run(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    upcoming = passing.upcoming

    async def slowly(engine: AsyncEngine, *, bells: bool) -> float | None:
        await asyncio.sleep(0.5)
        return await upcoming(engine, bells=bells)

    monkeypatch.setattr(passing, "upcoming", slowly)
    noted = note(max_retries=1, backoff=Backoff(min=0.2, max=0.2))
    await give(bench, True, noted, "retry")
    assert [type(outcome) for _, outcome in await bench.finish()] == [RetryAt, DeadLetter]


async def test_what_waits_too_long_for_its_turn_never_runs(bench: Workbench) -> None:
    add = note(expires=600, rate="1/h")
    first, late = [await give(bench, True, add, number) for number in range(2)]
    await bench.advance(700)
    assert ran == [0]
    assert [await bench.state(each) for each in (first, late)] == [State.DONE, State.EXPIRED]


async def test_what_arrives_too_late_never_runs(bench: Workbench) -> None:
    add = note(expires=600)
    await give(bench, False, add, "late")
    held_up = bench.broker.waiting.popleft()
    await bench.advance(700)
    bench.broker.put(held_up)
    assert [type(outcome) for _, outcome in await bench.drain()] == [Expired]
    assert ran == []


@both
async def test_a_retry_does_not_outlive_its_expiry(bench: Workbench, durable: bool) -> None:
    add = note(expires=600, max_retries=100, backoff=Backoff(min=400, max=400))
    message = await give(bench, durable, add, "retry")
    await bench.finish()
    assert bench.clock.ahead < 5_000
    if durable:
        assert await bench.state(message) is State.EXPIRED
    else:
        assert isinstance(bench.outcomes[-1][1], Expired)


async def test_things_come_in_the_order_of_their_moments_rows_or_not(bench: Workbench) -> None:
    add = note()
    for minutes, durable in ((5, False), (3, True), (4, False), (1, True), (2, True)):
        await give(bench, durable, add.options(delay=60 * minutes), minutes)
    await bench.advance(3600)
    assert ran == [1, 2, 3, 4, 5]


async def test_a_doorbell_that_got_lost_is_rung_again(bench: Workbench) -> None:
    await give(bench, True, note(), 1)
    bench.broker.waiting.clear()
    await bench.advance(30)
    assert ran == [1]


async def test_crons_fire_at_their_ticks(bench: Workbench) -> None:
    ticks: list[str | None] = []

    @actor(name="time.cron", cron=Cron("0 * * * *"))
    async def hourly() -> None:
        ticks.append(current().request_id)

    @actor(name="time.other", cron=Cron("* * * * *"))
    async def unscheduled() -> None:
        ticks.append("unscheduled")

    bench.schedule(hourly)
    start = bench.clock.now()
    await bench.advance(3 * 3600 + 60)
    hours = [start.replace(minute=0, second=0) + dt.timedelta(hours=n) for n in (1, 2, 3)]
    wanted = [f"cron:time.cron:{hour:%Y-%m-%dT%H:%M:%SZ}" for hour in hours]
    assert ticks[:3] == wanted
    assert await bench.finish() == []


async def test_a_debounced_message_runs_when_nothing_came_for_a_while(bench: Workbench) -> None:
    add = note(debounce=Debounce(wait=60, max_wait=300))
    for number in range(4):
        await give(bench, True, add, number)
        await bench.advance(30)
    assert ran == []
    await bench.advance(60)
    assert ran == [3]


async def test_a_debounced_message_does_not_wait_for_ever(bench: Workbench) -> None:
    add = note(debounce=Debounce(wait=60, max_wait=100))
    for number in range(6):
        await give(bench, True, add, number)
        await bench.advance(40)
    assert ran[0] == 2


async def test_a_key_is_free_when_its_time_is_over(bench: Workbench) -> None:
    add = note(unique=Unique(seconds=3600))
    await give(bench, True, add, 1)
    await bench.drain()
    await give(bench, True, add, 2)
    await bench.advance(3700)
    assert ran == [1]
    await give(bench, True, add, 3)
    await bench.drain()
    assert ran == [1, 3]


async def test_a_rate_lets_in_as_time_goes(bench: Workbench) -> None:
    add = note(rate="2/h")
    for number in range(5):
        await give(bench, True, add, number)
    await bench.drain()
    assert ran == [0, 1]
    await bench.advance(3_700)
    assert ran == [0, 1, 2, 3]
    await bench.finish()
    assert ran == [0, 1, 2, 3, 4]


async def test_a_result_is_kept_for_its_time(bench: Workbench, engine: AsyncEngine) -> None:
    message = await give(bench, True, note(result=600), "kept")
    await bench.drain()
    await bench.advance(500)
    assert (await look(engine, message.id)).result == "kept"
    await bench.advance(200)
    row = await look(engine, message.id)
    assert (row.result, row.state) == (None, "done")


async def test_time_cannot_pass_under_an_open_transaction(
    bench: Workbench, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callboard_workers.testing.passing.PATIENCE", 0.3)
    message = await give(bench, True, note().options(delay=60), 1)
    async with AsyncSession(engine) as session:
        await session.execute(_holding(message))
        with pytest.raises(WorkersError, match="commit it or roll it back"):
            await bench.advance(60)


def _holding(message: Message) -> Any:
    from callboard_workers.ledger.schema import messages

    return messages.select().where(messages.c.id == message.id).with_for_update()


async def test_on_dead_follows_when_the_last_retry_has_failed(bench: Workbench) -> None:
    @actor(name="time.bury")
    async def bury(id: str, error: dict[str, Any]) -> None:
        ran.append(error["type"])

    @actor(name="time.fail", on_dead=bury, max_retries=1)
    async def fail() -> None:
        if current().attempt == 2:
            raise Dead("enough")
        raise OSError

    await give(bench, True, fail)
    await give(bench, False, fail)
    await bench.finish()
    assert ran == ["Dead", "Dead"]
