"""An actor with a cron runs once per tick: however many schedulers look, whenever they look, in any time zone."""

import asyncio
import datetime as dt
from collections.abc import Iterator
from itertools import islice, pairwise
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers import Cron, DeclarationError, actor, current, registry
from callboard_workers.cron import request_id, tick_id, timetable
from callboard_workers.ledger import Ledger
from callboard_workers.testing import Workbench, workbench
from tests.workers.ledger.rows import look, make

BERLIN = ZoneInfo("Europe/Berlin")
YEAR = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Leave the registry as it was found."""
    yield
    for each in list(registry):
        if each.name.startswith("t."):
            registry.discard(each.name)


def berlin(*when: int, fold: int = 0) -> dt.datetime:
    return dt.datetime(*when, tzinfo=BERLIN, fold=fold).astimezone(dt.UTC)  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    ("expression", "tz", "fault"),
    [
        ("* * * * * *", "UTC", "6 fields"),
        ("* * * *", "UTC", "4 fields"),
        ("@daily", "UTC", "names such as @daily"),
        ("", "UTC", "0 fields"),
        ("0 0 30 2 *", "UTC", "Bad day-of-month"),
        ("0 0 31 2,4,6,9,11 *", "UTC", "Bad day-of-month"),
        ("*/0 * * * *", "UTC", "Bad minute"),
        ("60 * * * *", "UTC", "Bad minute"),
        ("-1 * * * *", "UTC", "Bad minute"),
        ("5-1 * * * *", "UTC", "Bad minute"),
        ("* * 0 * *", "UTC", "Bad day-of-month"),
        ("* * * 13 *", "UTC", "Bad month"),
        ("* * * * MONDAY", "UTC", "Bad day-of-week"),
        ("٣ * * * *", "UTC", "Bad minute"),
        ("*,, * * * *", "UTC", "Bad minute"),
        ("L/2,3 * L/2,5 * *", "UTC", "Bad"),
        ("* * * * *", "Europe/Atlantis", "no time zone"),
        ("* * * * *", "../../etc/passwd", "no time zone"),
        ("* * * * *", "/etc/localtime", "no time zone"),
        ("* * * * *", "Europe", "no time zone"),
        ("* * * * *", "Europe/../Europe/Berlin", "no time zone"),
        ("* * * * *", "Europe/Berlin\x00", "no time zone"),
        ("* * * * *", "", "no time zone"),
        ("* * * * *", "zone.tab", "no time zone"),
    ],
)
def test_a_bad_cron_is_refused_where_it_is_written(expression: str, tz: str, fault: str) -> None:
    with pytest.raises(DeclarationError, match=fault):
        Cron(expression, tz=tz)


def test_every_fault_is_named() -> None:
    with pytest.raises(DeclarationError) as refused:
        Cron("* *", tz="Nowhere", missed="some")
    assert [word in str(refused.value) for word in ("2 fields", "Nowhere", "some")] == [True] * 3


@pytest.mark.parametrize(
    ("option", "fault"),
    [("* * * * *", "not a Cron"), (Cron("* * * * *"), "missing a required argument: 'x'")],
)
def test_the_option_is_checked_with_the_function(option: Any, fault: str) -> None:
    async def needy(x: int) -> None: ...

    with pytest.raises(DeclarationError, match=fault):
        actor(name="t.needy", cron=option)(needy)
    assert "t.needy" not in timetable


def test_the_first_of_the_month_begins_at_midnight_there() -> None:
    ticks = list(islice(Cron("0 0 1 * *", tz="Europe/Berlin").ticks(YEAR), 12))
    assert [tick.astimezone(BERLIN).strftime("%m-%d %H:%M") for tick in ticks[:3]] == [
        "02-01 00:00",
        "03-01 00:00",
        "04-01 00:00",
    ]
    assert {tick.hour for tick in ticks} == {22, 23}


def test_a_time_that_the_clock_skips_fires_when_it_has_jumped() -> None:
    cron = Cron("30 2 * * *", tz="Europe/Berlin")  # on 29 March 2026 it is never half past two
    assert next(cron.ticks(berlin(2026, 3, 28, 12))) == berlin(2026, 3, 29, 3)
    assert cron.latest(berlin(2026, 3, 29, 3, 5)) == berlin(2026, 3, 29, 3)


def test_a_time_that_comes_twice_fires_the_first_time_only() -> None:
    cron = Cron("30 2 * * *", tz="Europe/Berlin")  # on 25 October 2026 it is twice
    first, second = islice(cron.ticks(berlin(2026, 10, 24, 12)), 2)
    assert first == berlin(2026, 10, 25, 2, 30)
    assert second == berlin(2026, 10, 26, 2, 30)
    assert cron.due(first, berlin(2026, 10, 25, 2, 45, fold=1)) == []


def test_every_hour_is_every_hour_on_a_day_of_25() -> None:
    ticks = Cron("0 * * * *", tz="Europe/Berlin").ticks(berlin(2026, 10, 24, 23, 30))
    found = list(islice(ticks, 25))
    assert {after - before for before, after in pairwise(found)} == {dt.timedelta(hours=1)}


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["*/7 * * * *", "30 2 * * *", "0 0 1 * *", "15 1,2,3 * * 0", "0 */6 * * *", "59 23 L * *"]),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
    st.integers(0, 365 * 86_400),
)
def test_looking_back_finds_what_looking_ahead_had_announced(expression: str, tz: str, seconds: int) -> None:
    cron = Cron(expression, tz=tz)
    start = YEAR + dt.timedelta(seconds=seconds)
    for tick in islice(cron.ticks(start), 5):
        for later in (0, 1, 59):
            # in the hour that comes twice a fixed time is found again at the latest when the clock has left it
            found = cron.latest(tick + dt.timedelta(seconds=later))
            assert found == tick, (tick.isoformat(), later)
        assert cron.due(tick - dt.timedelta(seconds=1), tick) == [tick]
        assert cron.due(tick, tick + dt.timedelta(seconds=59)) in ([], [tick + dt.timedelta(minutes=1)])


def test_of_what_was_missed_the_latest_fires_or_all_or_none() -> None:
    last, now = YEAR, YEAR + dt.timedelta(minutes=5, seconds=30)
    ticks = [YEAR + dt.timedelta(minutes=each) for each in range(1, 6)]
    assert Cron("* * * * *").due(last, now) == ticks[-1:]
    assert Cron("* * * * *", missed="all").due(last, now) == ticks
    assert Cron("* * * * *", missed="skip").due(last, now) == ticks[-1:]
    assert Cron("*/5 * * * *", missed="skip").due(last, now + dt.timedelta(minutes=1)) == []
    assert Cron("* * * * *").due(ticks[-1], now) == []


def test_the_id_of_a_firing_is_a_uuid7_of_its_moment_wherever_it_is_made() -> None:
    tick = berlin(2026, 3, 1)
    id = tick_id("t.a", tick)
    assert id == tick_id("t.a", tick.astimezone(BERLIN)) == UUID("019ca67a-ed80-7" + str(id)[15:])
    assert (id.version, id.variant) == (7, "specified in RFC 4122")
    assert len({id, tick_id("t.b", tick), tick_id("t.a", tick + dt.timedelta(seconds=1))}) == 3
    assert request_id("t.a", tick) == "cron:t.a:2026-02-28T23:00:00Z"


async def seen(engine: AsyncEngine, name: str, tick: dt.datetime) -> None:
    async with engine.begin() as connection:
        text = "INSERT INTO message_crons VALUES (:n, :t) ON CONFLICT (name) DO UPDATE SET tick = :t"
        await connection.execute(sa.text(text), {"n": name, "t": tick})


async def rows_of(engine: AsyncEngine, name: str) -> list[Any]:
    async with engine.connect() as connection:
        found = await connection.execute(sa.text("SELECT * FROM messages WHERE actor = :n ORDER BY id"), {"n": name})
        return list(found.all())


async def test_one_firing_per_tick_however_many_schedulers(engine: AsyncEngine) -> None:
    @actor(name="t.minutely", cron=Cron("* * * * *"))
    async def minutely() -> None: ...

    ledgers = [Ledger(engine) for _ in range(6)]
    await asyncio.gather(*(ledger.fire(timetable) for ledger in ledgers))
    assert await rows_of(engine, "t.minutely") == []  # only just met
    long_ago = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    for _ in range(3):
        await seen(engine, "t.minutely", long_ago)
        fired = await asyncio.gather(*(ledger.fire(timetable) for ledger in ledgers for _ in range(3)))
    rows = await rows_of(engine, "t.minutely")
    assert 1 <= len(rows) <= 2  # the minute may have turned meanwhile
    assert len({row.id for row in rows}) == len(rows)
    assert sum(map(len, fired)) <= 1
    for ledger in ledgers:
        await ledger.close()


async def test_a_clock_that_goes_back_fires_nothing_again(engine: AsyncEngine) -> None:
    @actor(name="t.clocked", cron=Cron("0 * * * *", missed="all"))
    async def clocked() -> None: ...

    ledger = Ledger(engine)
    await ledger.fire(timetable)  # met
    fired = await ledger.fire(timetable, ahead=2 * 3600)
    assert len(fired) >= 2
    assert await ledger.fire(timetable, ahead=3600) == []  # an hour back
    later = await ledger.fire(timetable, ahead=3 * 3600)
    assert later
    assert not {message.id for message in fired} & {message.id for message in later}
    await ledger.close()


async def test_a_tick_whose_row_is_gone_does_not_fire_again(engine: AsyncEngine) -> None:
    @actor(name="t.yearly", cron=Cron("0 0 1 1 *"))
    async def yearly() -> None: ...

    ledger = Ledger(engine)
    await seen(engine, "t.yearly", dt.datetime(2020, 6, 1, tzinfo=dt.UTC))
    assert len(await ledger.fire(timetable)) == 1
    async with engine.begin() as connection:
        await connection.execute(sa.text("DELETE FROM messages"))
    assert await ledger.fire(timetable) == []
    await ledger.close()


async def test_all_missed_ticks_are_made_up_for(engine: AsyncEngine, bench: Workbench) -> None:
    said: list[str | None] = []

    @actor(name="t.daily", cron=Cron("0 3 * * *", tz="Europe/Berlin", missed="all"), max_retries=1)
    async def daily() -> None:
        said.append(current().request_id)

    await seen(engine, "t.daily", dt.datetime.now(dt.UTC) - dt.timedelta(days=250))
    for _ in range(4):
        await bench.runtime._keeper.fire()
    await bench.drain()
    assert 249 <= len(said) <= 251
    assert len(set(said)) == len(said)
    assert all(each is not None and each.startswith("cron:t.daily:20") for each in said)


async def test_the_sweeper_of_a_worker_fires_without_any_beat(engine: AsyncEngine) -> None:
    ran: list[UUID] = []

    @actor(name="t.swept", cron=Cron("0 0 1 1 *"), queue="night", priority="low", max_crashes=7)
    async def swept() -> None:
        ran.append(current().id)

    await seen(engine, "t.swept", dt.datetime(2020, 6, 1, tzinfo=dt.UTC))
    async with workbench(engine) as bench:
        await bench.runtime._keeper.sweep()
        [message] = bench.sent(swept)
        row = await look(engine, message.id)
        assert (row.queue, row.priority, row.max_crashes, row.request_id) == (
            "night",
            9,
            7,
            request_id("t.swept", dt.datetime(dt.datetime.now(dt.UTC).year, 1, 1, tzinfo=dt.UTC)),
        )
        await bench.drain()
    assert ran == [message.id]


async def test_a_broken_cron_table_does_not_stop_the_sweep(engine: AsyncEngine) -> None:
    @actor(name="t.broken", cron=Cron("* * * * *"))
    async def broken() -> None: ...

    id = await make(engine, ring_at=sa.text("clock_timestamp() - interval '1 hour'"))
    async with engine.begin() as connection:
        await connection.execute(sa.text("DROP TABLE message_crons"))
    async with workbench(engine) as bench:
        await bench.runtime._keeper.sweep()
        assert [message.id for message in bench.broker.rung] == [id]
