"""What people ask for is done once, or refused; never half."""

import asyncio

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from tests.workers.ledger.rows import holder, look, make, tries
from workers.ledger import Canceling, Ledger, State
from workers.policy import Done


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


@pytest.mark.parametrize(
    ("old", "new", "moves"),
    [
        (State.UNCERTAIN, State.DONE, True),
        (State.HELD, State.DONE, True),
        (State.DEAD, State.DONE, True),
        (State.UNCERTAIN, State.HELD, True),
        (State.UNCERTAIN, State.DEAD, True),
        (State.DEAD, State.HELD, False),
        (State.QUEUED, State.DONE, False),
        (State.RUNNING, State.DONE, False),
        (State.CANCELED, State.DONE, False),
    ],
)
async def test_a_doubt_is_resolved_where_there_is_one(
    ledger: Ledger, engine: AsyncEngine, old: State, new: State, moves: bool
) -> None:
    id = await make(engine, old)
    assert await ledger.resolve(id, new, detail={"dsn": "2.0.0"}) is moves
    row = await look(engine, id)
    assert (row.state, row.outcome) == ((new, {"dsn": "2.0.0"}) if moves else (old, None))


async def test_a_doubt_is_not_resolved_to_a_state_that_runs(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="not to queued"):
        await ledger.resolve(uuid7(), State.QUEUED)
