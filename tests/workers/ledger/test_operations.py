"""What people ask for is done once, or refused; never half."""

import asyncio
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from callboard_workers.ledger import Canceling, Ledger, State
from callboard_workers.ledger.operations import RESOLVABLE
from callboard_workers.policy import Done
from tests.workers.ledger.rows import holder, look, make, tries


async def test_what_waits_is_canceled_at_once_and_again_is_harmless(ledger: Ledger, engine: AsyncEngine) -> None:
    id = await make(engine)
    assert await ledger.cancel(id) is Canceling.CANCELED
    before = await look(engine, id)
    assert (before.state, before.finished_at is not None) == ("canceled", True)
    assert await ledger.cancel(id) is Canceling.CANCELED
    assert await look(engine, id) == before
    assert await ledger.claim(id, "w", 30.0) is None


async def test_what_runs_is_asked_to_stop(ledger: Ledger, engine: AsyncEngine) -> None:
    id = await make(engine, State.RUNNING)
    assert await ledger.cancel(id) is Canceling.REQUESTED
    assert await ledger.cancel(id) is Canceling.REQUESTED
    row = await look(engine, id)
    assert (row.state, row.cancel_requested) == ("running", True)


@pytest.mark.parametrize(
    "columns",
    [
        {"state": State.RUNNING, "intent": True},
        *({"state": s} for s in ("done", "dead", "expired", "uncertain", "held")),
    ],
)
async def test_what_cannot_be_stopped_is_not(ledger: Ledger, engine: AsyncEngine, columns: dict[str, object]) -> None:
    id = await make(engine, **columns)
    before = await look(engine, id)
    assert await ledger.cancel(id) is Canceling.REFUSED
    assert await look(engine, id) == before


async def test_another_tenants_message_is_unknown(ledger: Ledger, engine: AsyncEngine) -> None:
    mine, theirs = uuid7(), uuid7()
    id = await make(engine, tenant_id=theirs)
    dead = await make(engine, State.DEAD, tenant_id=theirs)
    assert await ledger.cancel(id, mine) is Canceling.UNKNOWN
    assert await ledger.requeue([dead], by="me", tenant_id=mine) == set()
    assert await ledger.cancel(id, theirs) is Canceling.CANCELED
    assert await ledger.requeue([dead], by="them", tenant_id=theirs) == {dead}


async def test_an_unknown_message_is_unknown(ledger: Ledger) -> None:
    assert await ledger.cancel(uuid7()) is Canceling.UNKNOWN


@pytest.mark.parametrize("state", [State.DEAD, State.HELD, State.UNCERTAIN])
async def test_a_requeued_message_runs_again_under_a_new_epoch_and_the_record_says_who(
    ledger: Ledger, engine: AsyncEngine, state: State
) -> None:
    id = await make(engine, state, epoch=3, intent=state is State.UNCERTAIN, attempts=5, crashes=3)
    assert await ledger.requeue([id], by="ada", reason="fixed") == {id}
    row = await look(engine, id)
    assert (row.state, row.epoch, row.intent, row.attempts, row.crashes) == ("queued", 4, False, 5, 0)
    [note] = await tries(engine, id)
    assert (note.epoch, note.outcome, note.detail) == (4, "requeued", {"by": "ada", "reason": "fixed"})
    assert await ledger.settle(holder(id, epoch=3), Done()) is None, "a late word from before the requeue"
    claim = await ledger.claim(id, "w", 30.0)
    assert claim is not None
    assert claim.epoch == 5


async def test_nothing_is_requeued_twice(ledger: Ledger, engine: AsyncEngine) -> None:
    id = await make(engine, State.DEAD)
    answers = await asyncio.gather(*(ledger.requeue([id], by=f"p{n}") for n in range(20)))
    assert sum(answer == {id} for answer in answers) == 1
    assert len(await tries(engine, id)) == 1


@pytest.mark.parametrize("state", [State.QUEUED, State.RUNNING, State.DONE, State.CANCELED, State.EXPIRED])
async def test_only_what_ended_badly_is_requeued(ledger: Ledger, engine: AsyncEngine, state: State) -> None:
    id = await make(engine, state)
    assert await ledger.requeue([id], by="me") == set()
    assert (await look(engine, id)).state == state


async def test_a_message_whose_key_was_taken_over_stays_where_it_is(ledger: Ledger, engine: AsyncEngine) -> None:
    old = await make(engine, State.DEAD, key="k")
    await make(engine, key="k")
    assert await ledger.requeue([old], by="me") == set()


@pytest.mark.parametrize("old", list(State))
@pytest.mark.parametrize("new", [State.DONE, State.DEAD, State.HELD])
async def test_a_doubt_is_resolved_where_there_is_one(
    ledger: Ledger, engine: AsyncEngine, old: State, new: State
) -> None:
    id = await make(engine, old, epoch=3)
    async with engine.begin() as connection:
        moved = await ledger.resolve(connection, [id], new, by="ada", reason="he has it")
    row = await look(engine, id)
    if old in RESOLVABLE[new]:
        assert moved == {id}
        assert (row.state, row.epoch) == (new, 4)
        [note] = await tries(engine, id)
        assert (note.epoch, note.outcome) == (4, "resolved")
        assert note.detail == {"by": "ada", "reason": "he has it", "to": new}
    else:
        assert moved == set()
        assert (row.state, row.epoch) == (old, 3)
        assert await tries(engine, id) == []


async def test_what_was_resolved_hears_no_late_word_of_its_attempt(ledger: Ledger, engine: AsyncEngine) -> None:
    id = await make(engine, State.UNCERTAIN, epoch=3, intent=True)
    async with engine.begin() as connection:
        await ledger.resolve(connection, [id], State.HELD, by="ada")
    assert await ledger.settle(holder(id, epoch=3), Done(), fenced=True) is None
    assert (await look(engine, id)).state == "held"


async def test_a_doubt_of_another_tenant_is_none_of_ours(ledger: Ledger, engine: AsyncEngine) -> None:
    id = await make(engine, State.UNCERTAIN, tenant_id=uuid7())
    async with engine.begin() as connection:
        assert await ledger.resolve(connection, [id], State.DONE, by="me", tenant_id=uuid7()) == set()


async def test_of_many_that_resolve_one_does(ledger: Ledger, engine: AsyncEngine) -> None:
    id = await make(engine, State.UNCERTAIN)

    async def resolve(number: int) -> set[UUID]:
        async with engine.begin() as connection:
            return await ledger.resolve(connection, [id], State.DONE, by=f"p{number}")

    assert sum(map(bool, await asyncio.gather(*map(resolve, range(10))))) == 1
    assert len(await tries(engine, id)) == 1


async def test_a_doubt_is_not_resolved_to_a_state_that_runs(ledger: Ledger, engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        with pytest.raises(ValueError, match="not to queued"):
            await ledger.resolve(connection, [uuid7()], State.QUEUED, by="me")
