"""Nothing that is due waits for ever, nothing that a dead worker held is lost, and nothing is done twice."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers import RetryAt
from callboard_workers.ledger import Ledger, State
from callboard_workers.ledger.claims import Suspect
from callboard_workers.ledger.sweeper import LIMIT, PLENTY
from callboard_workers.message import Message, Priority
from tests.workers.ledger.rows import FUTURE, PAST, change, look, make, tries

LONG_AGO = sa.text("clock_timestamp() - interval '2 hours'")


class Bell:
    """Hears what is rung."""

    def __init__(self) -> None:
        self.heard: list[Message] = []

    def __call__(self, messages: Sequence[Message]) -> None:
        self.heard.extend(messages)

    @property
    def ids(self) -> list[UUID]:
        return [message.id for message in self.heard]


@pytest.fixture
def bell() -> Bell:
    return Bell()


async def test_a_due_row_is_rung_for_with_all_its_doorbell_needs(
    ledger: Ledger, engine: AsyncEngine, bell: Bell
) -> None:
    id = await make(engine, queue="email", priority=3, ring_at=PAST, due_at=PAST, headers={"request_id": "r"})
    await ledger.sweep(bell)
    [rung] = bell.heard
    assert (rung.id, rung.actor, rung.queue, rung.priority) == (id, "tests.noop", "email", Priority.HIGH)
    assert (rung.args, rung.headers) == ((), {"request_id": "r"})


async def test_the_same_row_is_rung_for_ever_more_seldom(ledger: Ledger, engine: AsyncEngine, bell: Bell) -> None:
    id = await make(engine, ring_at=PAST)
    waits: list[float] = []
    for _ in range(12):
        await ledger.sweep(bell)
        row = await look(engine, id)
        async with engine.connect() as connection:
            now = (await connection.execute(sa.text("SELECT clock_timestamp()"))).scalar_one()
        waits.append((row.ring_at - now).total_seconds())
        await change(engine, id, ring_at=PAST)
    assert len(bell.heard) == 12
    assert [round(wait, -1) for wait in waits[3:6]] == [40, 80, 160]
    assert max(waits) <= 3_600


async def test_what_is_not_to_be_rung_for_is_not(ledger: Ledger, engine: AsyncEngine, bell: Bell) -> None:
    await make(engine, ring_at=FUTURE)
    for state in State:
        if state not in {State.QUEUED, State.RUNNING}:
            await make(engine, state, ring_at=PAST)
    await make(engine, State.RUNNING, ring_at=PAST)
    swept = await ledger.sweep(bell)
    assert bell.heard == []
    assert not any(getattr(swept, name) for name in swept.__struct_fields__)


async def test_four_sweepers_at_once_ring_once_for_each_row(engine: AsyncEngine, bell: Bell) -> None:
    ids = {await make(engine, ring_at=PAST) for _ in range(60)}
    crashed = {await make(engine, State.RUNNING, lease_until=PAST) for _ in range(20)}
    ledgers = [Ledger(engine) for _ in range(4)]

    async def sweep(ledger: Ledger) -> None:
        for _ in range(5):
            await ledger.sweep(bell)

    await asyncio.gather(*(sweep(ledger) for ledger in ledgers))
    await asyncio.gather(*(ledger.close() for ledger in ledgers))
    assert sorted(bell.ids) == sorted(ids | crashed)
    assert {(await look(engine, id)).deaths for id in crashed} == {1}


async def test_sweepers_without_the_lock_between_them_still_ring_once(
    engine: AsyncEngine, bell: Bell, monkeypatch: pytest.MonkeyPatch
) -> None:
    from callboard_workers.ledger import sweeper

    monkeypatch.setattr(sweeper, "RING", sweeper.RING.replace(sweeper._GATE, "true"))
    assert "advisory" not in sweeper.RING
    ids = {await make(engine, ring_at=PAST) for _ in range(40)}
    await asyncio.gather(*(sweeper.sweep(engine, bell, limit=15) for _ in range(8)))
    await sweeper.sweep(engine, bell)
    assert sorted(bell.ids) == sorted(ids)


async def test_a_row_held_by_somebody_else_does_not_hold_the_sweep(
    ledger: Ledger, engine: AsyncEngine, bell: Bell
) -> None:
    held, free = await make(engine, ring_at=LONG_AGO), await make(engine, ring_at=PAST)
    async with engine.begin() as other:
        await other.execute(sa.text("SELECT FROM messages WHERE id = :id FOR UPDATE"), {"id": held})
        await ledger.sweep(bell)
        assert bell.ids == [free]
    await ledger.sweep(bell)
    assert bell.ids == [free, held]


async def test_a_long_queue_is_spared_doorbells_it_already_holds(
    ledger: Ledger, engine: AsyncEngine, bell: Bell
) -> None:
    rung_for = await make(engine, ring_at=PAST, rings=1)
    retry = await make(engine, ring_at=PAST, rings=0)
    patient = await make(engine, ring_at=PAST, rings=1, due_at=PAST)
    short = await make(engine, ring_at=PAST, rings=1, queue="short")

    async def depth(queue: str) -> int:
        return PLENTY if queue == "default" else 0

    swept = await ledger.sweep(bell, depth=depth)
    assert set(bell.ids) == {retry, patient, short}
    assert [message.id for message in swept.postponed] == [rung_for]
    assert (await look(engine, rung_for)).rings == 2


async def test_a_message_not_started_in_time_expires(ledger: Ledger, engine: AsyncEngine, bell: Bell) -> None:
    late = await make(engine, expires_at=PAST, ring_at=PAST)
    later = await make(engine, expires_at=FUTURE, ring_at=FUTURE)
    running = await make(engine, State.RUNNING, expires_at=PAST)
    swept = await ledger.sweep(bell)
    assert [message.id for message in swept.expired] == [late]
    assert bell.heard == []
    assert [(await look(engine, id)).state for id in (late, later, running)] == ["expired", "queued", "running"]


async def test_what_a_dead_worker_held_runs_again_and_the_crash_is_counted_apart(
    ledger: Ledger, engine: AsyncEngine, bell: Bell
) -> None:
    id = await make(engine, State.RUNNING, lease_until=PAST, attempts=2, begun=1)
    alive = await make(engine, State.RUNNING)
    await ledger.sweep(bell)
    row = await look(engine, id)
    assert (row.state, row.attempts, row.crashes, row.epoch, row.lease_until) == ("queued", 2, 1, 1, None)
    assert [(each.epoch, each.outcome, each.worker) for each in await tries(engine, id)] == [(1, "crashed", "w")]
    assert bell.ids == [id]
    assert (await look(engine, alive)).state == "running"
    claim = await ledger.claim(id, "heir", 30.0)
    assert claim is not None
    assert (claim.epoch, claim.crashes) == (2, 1)


async def test_what_died_in_company_becomes_a_suspect_and_nothing_is_counted(
    ledger: Ledger, engine: AsyncEngine, bell: Bell
) -> None:
    first = [await make(engine, State.RUNNING, lease_until=PAST, worker="a", max_crashes=1) for _ in range(5)]
    second = await make(engine, State.RUNNING, lease_until=PAST, worker="b", max_crashes=1)
    swept = await ledger.sweep(bell)
    assert swept.quarantined == []
    rows = [await look(engine, id) for id in (*first, second)]
    assert [(row.state, row.crashes, row.deaths, row.isolation) for row in rows] == [
        *[("queued", 0, 1, 3)] * 5,
        ("queued", 0, 1, 1),
    ]
    assert [each.outcome for each in await tries(engine, second)] == ["interrupted"]
    assert await ledger.claim_unless_suspect(second, "c") == Suspect(second, 1, 1)
    assert (await look(engine, second)).state == "queued"


async def test_a_group_that_died_is_halved(ledger: Ledger, engine: AsyncEngine, bell: Bell) -> None:
    ids = [await make(engine, isolation=5, deaths=1) for _ in range(5)]
    claims = [claim for id in ids if (claim := await ledger.claim(id, "w", 30.0)) is not None]
    await ledger.begin(claims, 5)
    assert await ledger.settle(claims[0], RetryAt(delay=0)) is State.QUEUED
    for id in ids[1:]:
        await change(engine, id, lease_until=PAST)
    await ledger.sweep(bell)
    rows = [await look(engine, id) for id in ids]
    assert [(row.isolation, row.deaths, row.begun) for row in rows] == [(None, 0, None), *[(3, 2, None)] * 4]
    assert {row.crashes for row in rows} == {0}


async def test_an_attempt_that_settles_resets_the_count(ledger: Ledger, engine: AsyncEngine) -> None:
    id = await make(engine, crashes=2, deaths=9, isolation=1)
    claim = await ledger.claim(id, "w", 30.0)
    assert claim is not None
    assert claim.deaths == 9
    await ledger.begin([claim], 1)
    await ledger.settle(claim, RetryAt(delay=0))
    row = await look(engine, id)
    assert (row.crashes, row.deaths, row.isolation, row.begun) == (0, 0, None, None)


async def test_a_claim_whose_answer_was_lost_is_no_crash(ledger: Ledger, engine: AsyncEngine, bell: Bell) -> None:
    """Also of a suspect: it is claimed and has not begun."""
    id = await make(engine, max_crashes=1, isolation=1, deaths=1)
    for _ in range(3):
        assert await ledger.claim(id, "w", 30.0) is not None
        await change(engine, id, lease_until=PAST)
        await ledger.sweep(bell)
    row = await look(engine, id)
    assert (row.state, row.crashes, row.isolation) == ("queued", 0, 1)


async def test_what_runs_beside_other_work_again_is_not_counted(
    ledger: Ledger, engine: AsyncEngine, bell: Bell
) -> None:
    id = await make(engine, max_crashes=1, isolation=1, deaths=1)
    claim = await ledger.claim(id, "w", 30.0)
    assert claim is not None
    await ledger.begin([claim], 1)
    await ledger.begin([claim], None)
    await change(engine, id, lease_until=PAST)
    await ledger.sweep(bell)
    row = await look(engine, id)
    assert (row.state, row.crashes, row.deaths, row.isolation) == ("queued", 0, 2, 1)


async def test_a_message_that_kills_its_workers_is_quarantined(ledger: Ledger, engine: AsyncEngine, bell: Bell) -> None:
    id = await make(engine, max_crashes=3)
    for _ in range(3):
        claim = await ledger.claim(id, "w", 30.0)
        assert claim is not None
        await ledger.begin([claim], 1)
        await change(engine, id, lease_until=PAST)
        swept = await ledger.sweep(bell)
    assert [message.id for message in swept.quarantined] == [id]
    row = await look(engine, id)
    assert (row.state, row.crashes, row.error["reason"]) == ("dead", 3, "quarantined")
    assert row.finished_at is not None
    assert len(await tries(engine, id)) == 3


async def test_what_was_to_be_canceled_is_when_its_worker_died(ledger: Ledger, engine: AsyncEngine, bell: Bell) -> None:
    id = await make(engine, State.RUNNING, lease_until=PAST, cancel_requested=True, crashes=2, begun=1)
    await ledger.sweep(bell)
    assert (await look(engine, id)).state == "canceled"
    assert bell.heard == []


async def test_past_the_fence_a_lapsed_lease_never_makes_it_run_again(
    ledger: Ledger, engine: AsyncEngine, bell: Bell
) -> None:
    recent = await make(
        engine, State.RUNNING, intent=True, lease_until=sa.text("clock_timestamp() - interval '9 minutes'")
    )
    id = await make(engine, State.RUNNING, intent=True, lease_until=PAST, begun=1)
    swept = await ledger.sweep(bell)
    assert [message.id for message in swept.doubtful] == [id]
    assert bell.heard == []
    assert (await look(engine, recent)).state == "running", "its server may still be about to answer"
    row = await look(engine, id)
    assert (row.state, row.intent, row.crashes) == ("uncertain", True, 1)
    assert [each.outcome for each in await tries(engine, id)] == ["uncertain"]


async def test_doubt_is_resent_only_where_the_policy_says_so_and_after_the_grace(
    ledger: Ledger, engine: AsyncEngine, bell: Bell
) -> None:
    doubt = {"intent": True, "epoch": 4, "finished_at": PAST}
    hold = await make(engine, State.UNCERTAIN, uncertain_policy="hold", **doubt)
    fresh = await make(engine, State.UNCERTAIN, uncertain_policy="resend", **(doubt | {"finished_at": sa.func.now()}))
    id = await make(engine, State.UNCERTAIN, uncertain_policy="resend", **doubt)
    swept = await ledger.sweep(bell)
    assert [message.id for message in swept.resent] == bell.ids == [id]
    row = await look(engine, id)
    assert (row.state, row.intent, row.epoch) == ("queued", False, 5)
    assert [(each.epoch, each.outcome) for each in await tries(engine, id)] == [(5, "resent")]
    assert [(await look(engine, each)).state for each in (hold, fresh)] == ["uncertain", "uncertain"]


async def test_resending_has_an_end(ledger: Ledger, engine: AsyncEngine, bell: Bell) -> None:
    doubt = {"intent": True, "finished_at": PAST}
    id = await make(engine, State.UNCERTAIN, uncertain_policy="resend", max_crashes=2, **doubt)
    for _ in range(4):
        await ledger.sweep(bell)
        if await ledger.claim(id, "w", 30.0):
            await change(engine, id, intent=True)
            await change(engine, id, state="uncertain", finished_at=PAST)
    assert bell.ids == [id, id]
    assert (await look(engine, id)).state == "uncertain"


async def test_a_sweep_takes_a_bounded_bite_and_says_that_there_is_more(
    ledger: Ledger, engine: AsyncEngine, bell: Bell
) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            sa.text(
                "INSERT INTO messages (id, actor, queue, priority, args, ring_at)"
                " SELECT gen_random_uuid(), 'a', 'default', 6, '[[], {}]', now() FROM generate_series(1, :n)"
            ),
            {"n": LIMIT + 10},
        )
    assert (await ledger.sweep(bell)).full
    assert len(bell.heard) == LIMIT
    assert not (await ledger.sweep(bell)).full
    assert len(set(bell.ids)) == LIMIT + 10


async def test_every_duty_finds_its_rows_by_an_index(engine: AsyncEngine) -> None:
    from callboard_workers.ledger import sweeper

    async with engine.begin() as connection:
        await connection.execute(
            sa.text(
                "INSERT INTO messages (id, actor, queue, priority, args, state, ring_at)"
                " SELECT gen_random_uuid(), 'a', 'q', 6, '[[], {}]',"
                " CASE WHEN n % 50 = 0 THEN 'queued' ELSE 'done' END,"
                " now() + n * interval '1 second' FROM generate_series(1, 20000) n"
            )
        )
        await connection.exec_driver_sql("ANALYZE messages")
        for sql, *values in (
            (sweeper.RING, 500),
            (sweeper.EXPIRE, 500),
            (sweeper.RECLAIM, 500),
            (sweeper.DOUBTFUL, 500, 1.0),
            (sweeper.RESEND, 500, 1.0),
        ):
            plan = "\n".join((await connection.exec_driver_sql(f"EXPLAIN {sql}", tuple(values))).scalars())
            assert "Seq Scan on messages" not in plan, plan
