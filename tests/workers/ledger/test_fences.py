"""The point of no return is passed only by the attempt whose row it is, in time, and not once it was canceled."""

import asyncio

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.errors import LeaseLost
from callboard_workers.ledger import Canceling, Ledger, State, database
from callboard_workers.policy import RetryAt
from tests.workers.ledger.rows import PAST, blocked, change, holder, locked, look, make


async def test_the_owner_passes_and_the_row_shows_intent(ledger: Ledger, engine: AsyncEngine) -> None:
    id = await make(engine, State.RUNNING)
    await ledger.fence(holder(id))
    assert (await look(engine, id)).intent


async def test_its_detail_is_stored_by_the_statement_that_announces_intent(ledger: Ledger, engine: AsyncEngine) -> None:
    with_detail, without, lost = [await make(engine, State.RUNNING) for _ in range(3)]
    await change(engine, lost, epoch=2)
    answers = await asyncio.gather(
        ledger.fence(holder(with_detail), {"said": "\0 and more", "list": [1]}),
        ledger.fence(holder(without)),
        ledger.fence(holder(lost), {"said": "too late"}),
        return_exceptions=True,
    )
    assert [type(each) for each in answers] == [type(None), type(None), LeaseLost]
    rows = [await look(engine, id) for id in (with_detail, without, lost)]
    assert [row.fence_detail for row in rows] == [{"said": "\ufffd and more", "list": [1]}, None, None]
    assert [row.intent for row in rows] == [True, True, False]


async def test_passing_twice_is_passing(ledger: Ledger, engine: AsyncEngine) -> None:
    id = await make(engine, State.RUNNING)
    await ledger.fence(holder(id))
    await ledger.fence(holder(id))


@pytest.mark.parametrize(
    "columns",
    [
        {"lease_until": PAST},
        {"lease_until": sa.text("clock_timestamp() + interval '1 second'")},
        {"epoch": 2},
        {"cancel_requested": True},
    ],
    ids=["lease lapsed", "lease about to lapse", "another attempt's", "canceled"],
)
async def test_nobody_else_passes(ledger: Ledger, engine: AsyncEngine, columns: dict[str, object]) -> None:
    id = await make(engine, State.RUNNING, **columns)
    with pytest.raises(LeaseLost):
        await ledger.fence(holder(id))
    assert not (await look(engine, id)).intent


@pytest.mark.parametrize("state", [state for state in State if state is not State.RUNNING])
async def test_a_row_that_does_not_run_has_no_fence_to_pass(ledger: Ledger, engine: AsyncEngine, state: State) -> None:
    id = await make(engine, state, epoch=1)
    with pytest.raises(LeaseLost):
        await ledger.fence(holder(id))


async def test_a_zombie_whose_row_was_reclaimed_and_claimed_again_is_stopped(
    ledger: Ledger, engine: AsyncEngine
) -> None:
    id = await make(engine)
    zombie = await ledger.claim(id, "zombie", 30.0)
    assert zombie is not None
    await change(engine, id, lease_until=PAST)
    await ledger.sweep(lambda messages: None)
    heir = await ledger.claim(id, "heir", 30.0)
    assert heir is not None
    with pytest.raises(LeaseLost):
        await ledger.fence(zombie)
    await ledger.fence(heir)


async def test_one_lost_lease_stops_only_its_own_attempt(ledger: Ledger, engine: AsyncEngine, sent: list[str]) -> None:
    ids = [await make(engine, State.RUNNING, **({"lease_until": PAST} if n % 10 == 0 else {})) for n in range(100)]
    answers = await asyncio.gather(*(ledger.fence(holder(id)) for id in ids), return_exceptions=True)
    assert [isinstance(answer, LeaseLost) for answer in answers] == [n % 10 == 0 for n in range(100)]
    assert len(sent) <= 2


async def test_of_a_cancellation_and_a_fence_at_once_exactly_one_is_honoured(
    ledger: Ledger, engine: AsyncEngine
) -> None:
    ids = [await make(engine, State.RUNNING) for _ in range(60)]

    async def fence(number: int) -> bool:
        await asyncio.sleep(number % 7 / 2_000)
        try:
            await ledger.fence(holder(ids[number]))
        except LeaseLost:
            return False
        return True

    passed, canceling = await asyncio.gather(
        asyncio.gather(*(fence(number) for number in range(60))),
        asyncio.gather(*(ledger.cancel(id) for id in ids)),
    )
    for through, answer in zip(passed, canceling, strict=True):
        assert answer is (Canceling.REFUSED if through else Canceling.REQUESTED)


async def test_a_fence_that_postgres_does_not_answer_is_not_passed(ledger: Ledger, engine: AsyncEngine) -> None:
    id = await make(engine, State.RUNNING)
    async with locked(engine, id):
        fence = asyncio.create_task(ledger.fence(holder(id)))
        pid = await blocked(engine, "SET intent = true")
        await database.fetch(engine, "SELECT pg_terminate_backend($1)", pid)
        with pytest.raises(LeaseLost, match="did not answer"):
            await fence
    # certainly not passed: even if Postgres had noted the intent, a retry is a definite no
    assert await ledger.settle(holder(id), RetryAt(delay=1, definite=True)) is State.QUEUED
