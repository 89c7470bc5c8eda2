"""A doorbell gets its row once, and only when the row is to be had."""

import asyncio
import datetime as dt
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from callboard_workers.ledger import Ledger, State, claims
from callboard_workers.ledger.claims import Bell
from tests.workers.ledger.rows import FUTURE, PAST, blocked, locked, look, make


async def test_a_claim_raises_the_epoch_takes_the_lease_and_brings_the_message(
    ledger: Ledger, engine: AsyncEngine
) -> None:
    tenant = uuid7()
    id = await make(
        engine,
        args=[[1, "ä"], {"b": None}],
        headers={"request_id": "r"},
        tenant_id=tenant,
        attempts=2,
        crashes=1,
        snoozes=3,
        priority=3,
        queue="email",
        due_at=PAST,
        error={"type": "Refused", "definite": True},
    )
    claim = await ledger.claim(id, "w1", 30.0)
    assert claim is not None
    assert (claim.id, claim.epoch, claim.actor, claim.queue, claim.priority) == (id, 1, "tests.noop", "email", 3)
    assert (claim.args, claim.kwargs, claim.headers) == ([1, "ä"], {"b": None}, {"request_id": "r"})
    assert (claim.tenant_id, claim.attempts, claim.crashes, claim.snoozes) == (tenant, 2, 1, 3)
    assert 3_600 <= claim.waited < 3_700
    row = await look(engine, id)
    assert (row.state, row.epoch, row.worker, row.intent) == ("running", 1, "w1", False)
    assert dt.timedelta(seconds=29) < row.lease_until - row.started_at < dt.timedelta(seconds=31)
    assert row.error == {"type": "Refused"}, "an old definite answer must not excuse a new attempt"


async def test_of_a_hundred_claimers_that_meet_in_postgres_one_wins(engine: AsyncEngine) -> None:
    id = await make(engine)
    answers = await asyncio.gather(*(claims.claim(engine, [Bell(id, f"w{number}", 30.0)]) for number in range(100)))
    winners = [(number, claim) for number, [claim] in enumerate(answers) if claim is not None]
    assert len(winners) == 1
    row = await look(engine, id)
    assert (row.epoch, row.worker) == (1, f"w{winners[0][0]}")


async def test_two_doorbells_for_one_row_in_one_batch_get_it_once(ledger: Ledger, engine: AsyncEngine) -> None:
    id = await make(engine)
    got = await asyncio.gather(*(ledger.claim(id, "w", 30.0) for _ in range(20)))
    assert sum(claim is not None for claim in got) == 1
    assert (await look(engine, id)).epoch == 1


async def test_what_is_not_to_be_had_is_refused_and_left_alone(ledger: Ledger, engine: AsyncEngine) -> None:
    refused: dict[str, UUID] = {
        "not due": await make(engine, due_at=FUTURE),
        "expired": await make(engine, expires_at=PAST),
        "canceled meanwhile": await make(engine, cancel_requested=True),
        "invented": uuid7(),
        **{state: await make(engine, state) for state in State if state is not State.QUEUED},
    }
    before = {why: await look(engine, id) for why, id in refused.items() if why != "invented"}
    got = dict(
        zip(refused, await asyncio.gather(*(ledger.claim(id, "x", 30.0) for id in refused.values())), strict=True)
    )
    assert [why for why, claim in got.items() if claim is not None] == []
    assert before == {why: await look(engine, id) for why, id in refused.items() if why != "invented"}


async def test_what_comes_together_is_claimed_in_few_statements(
    ledger: Ledger, engine: AsyncEngine, sent: list[str]
) -> None:
    ids = [await make(engine) for _ in range(150)]
    got = await asyncio.gather(*(ledger.claim(id, "w", 30.0) for id in ids))
    assert {claim.id for claim in got if claim} == set(ids)
    assert len(sent) <= 2


async def test_batches_that_share_rows_in_any_order_never_deadlock(engine: AsyncEngine, slow_updates: None) -> None:
    ids = [await make(engine) for _ in range(12)]
    batches = [[Bell(id, f"w{n}", 30.0) for id in (ids if n % 2 else ids[::-1])] for n in range(4)]
    answers = await asyncio.gather(*(claims.claim(engine, batch) for batch in batches))
    assert sorted(claim.id for answer in answers for claim in answer if claim) == sorted(ids)


async def test_a_claim_nobody_waits_for_any_more_is_given_back(ledger: Ledger, engine: AsyncEngine) -> None:
    id = await make(engine)
    async with locked(engine, id):
        waiter = asyncio.create_task(ledger.claim(id, "w", 30.0))
        await blocked(engine, "WITH bell")
        waiter.cancel()
        await asyncio.wait({waiter})
    await ledger.close()
    row = await look(engine, id)
    assert (row.state, row.epoch, row.attempts, row.crashes) == ("queued", 1, 0, 0)
