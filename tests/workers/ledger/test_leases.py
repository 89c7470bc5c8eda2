"""Leases are kept by their owners, and given back without a mark."""

import datetime as dt

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.ledger import Ledger, State
from callboard_workers.ledger.leases import Renewal
from tests.workers.ledger.rows import PAST, holder, look, make, tries


async def test_all_leases_are_renewed_in_one_statement(ledger: Ledger, engine: AsyncEngine, sent: list[str]) -> None:
    ids = [await make(engine, State.RUNNING) for _ in range(50)]
    renewals = await ledger.renew([holder(id) for id in ids], 600.0)
    assert set(renewals.values()) == {Renewal(True)}
    assert len(sent) == 1
    left = (await look(engine, ids[0])).lease_until - dt.datetime.now(dt.UTC)
    assert dt.timedelta(seconds=590) < left < dt.timedelta(seconds=610)


async def test_a_lapsed_lease_that_nobody_took_is_still_ours(ledger: Ledger, engine: AsyncEngine) -> None:
    id = await make(engine, State.RUNNING, lease_until=PAST)
    assert (await ledger.renew([holder(id)], 30.0))[id].held
    await ledger.fence(holder(id))


@pytest.mark.parametrize("columns", [{"epoch": 2}, {"state": "queued"}, {"state": "uncertain"}, {"state": "done"}])
async def test_a_lost_lease_is_told(ledger: Ledger, engine: AsyncEngine, columns: dict[str, object]) -> None:
    id = await make(engine, **({"state": State.RUNNING} | columns))
    assert await ledger.renew([holder(id)], 30.0) == {id: Renewal(False)}


async def test_a_wish_to_cancel_is_told_unless_the_fence_is_passed(ledger: Ledger, engine: AsyncEngine) -> None:
    before = await make(engine, State.RUNNING, cancel_requested=True)
    beyond = await make(engine, State.RUNNING, cancel_requested=True, intent=True)
    renewals = await ledger.renew([holder(before), holder(beyond)], 30.0)
    assert renewals == {before: Renewal(True, cancel=True), beyond: Renewal(True)}


async def test_what_is_released_is_due_at_once_and_costs_nothing(ledger: Ledger, engine: AsyncEngine) -> None:
    id = await make(engine)
    claim = await ledger.claim(id, "w", 30.0)
    assert claim is not None
    assert await ledger.release([claim]) == {id}
    row = await look(engine, id)
    assert (row.state, row.attempts, row.crashes, row.snoozes, row.rings) == ("queued", 0, 0, 0, 0)
    assert await tries(engine, id) == []
    assert await ledger.claim(id, "other", 30.0) is not None


async def test_what_is_not_ours_is_not_released(ledger: Ledger, engine: AsyncEngine) -> None:
    other = await make(engine, State.RUNNING, epoch=2)
    assert await ledger.release([holder(other)]) == set()
    assert (await look(engine, other)).state == "running"


async def test_a_fence_whose_answer_nobody_heard_is_taken_back(ledger: Ledger, engine: AsyncEngine) -> None:
    id = await make(engine, State.RUNNING, intent=True)
    assert await ledger.release([holder(id)]) == {id}
    row = await look(engine, id)
    assert (row.state, row.intent, row.error) == ("queued", False, {"definite": True})


async def test_what_is_only_to_be_released_if_canceled_is_otherwise_kept(ledger: Ledger, engine: AsyncEngine) -> None:
    kept, canceled = await make(engine, State.RUNNING), await make(engine, State.RUNNING, cancel_requested=True)
    assert await ledger.release([holder(kept), holder(canceled)], only_canceled=True) == {canceled}
    assert [(await look(engine, id)).state for id in (kept, canceled)] == ["running", "canceled"]


async def test_what_is_to_be_canceled_is_canceled_when_released(ledger: Ledger, engine: AsyncEngine) -> None:
    id = await make(engine, State.RUNNING, cancel_requested=True)
    await ledger.release([holder(id)])
    row = await look(engine, id)
    assert row.state == "canceled"
    assert row.finished_at is not None


async def test_nothing_held_is_nothing_sent(ledger: Ledger, sent: list[str]) -> None:
    assert await ledger.renew([]) == {}
    assert await ledger.release([]) == set()
    assert sent == []
