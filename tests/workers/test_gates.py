"""So many messages at a time, so many starts per period, in every process together. On real rows."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from callboard_workers import Actor, Concurrency, RetryAt, execute
from callboard_workers.ledger import Ledger
from callboard_workers.testing import Workbench, doorbell
from tests.workers.ledger.rows import PAST, change, look
from tests.workers.limiting import count, finish, forgetting, put


@pytest.fixture
def noop() -> Iterator[Callable[..., Actor[Any, Any]]]:
    """Makes the actor `t.noop` with these options; it is forgotten after the test."""
    yield from forgetting()


async def bells(bench: Workbench) -> list[UUID]:
    """Let what was admitted in the background be rung for; the ids that wait at the broker, in order."""
    while bench.runtime._ending:
        await asyncio.wait(set(bench.runtime._ending))
    found = [delivery.id for delivery in bench.broker.waiting]
    bench.broker.waiting.clear()
    return found


async def test_no_more_run_at_once_and_the_oldest_comes_next(engine: AsyncEngine, bench: Workbench, noop: Any) -> None:
    add, ledger = noop(concurrency=2), bench.runtime.ledger
    ids = [(await put(engine, add, number)).id for number in range(5)]
    assert await bells(bench) == ids[:2]
    assert await ledger.claim(ids[4], "w") is None  # a bell out of turn opens nothing
    claims = [await ledger.claim(id, "w") for id in ids[:2]]
    assert await ledger.admit(["t.noop:*"]) == []
    await finish(ledger, claims[1])
    assert [message.id for message in await ledger.admit(["t.noop:*"])] == [ids[2]]


async def test_a_settled_attempt_wakes_the_next(engine: AsyncEngine, bench: Workbench, noop: Any) -> None:
    add = noop(concurrency=1)
    messages = [await put(engine, add, number) for number in range(6)]
    order: list[UUID] = []
    for _ in messages:
        [id] = await bells(bench)
        order.append(id)
        await execute(bench.runtime, doorbell(next(each for each in messages if each.id == id)))
    assert order == [message.id for message in messages]
    assert await count(engine, "state = 'done'") == 6


async def test_the_sweeper_wakes_what_a_dead_worker_forgot(engine: AsyncEngine, bench: Workbench, noop: Any) -> None:
    add, ledger = noop(concurrency=1), bench.runtime.ledger
    first, second = [(await put(engine, add, number)).id for number in range(2)]
    await bells(bench)
    await finish(ledger, await ledger.claim(first, "w"))  # and the worker dies before it wakes anybody
    swept = await bench.sweep()
    assert [message.id for message in swept.admitted] == [second]
    assert await bells(bench) == [second]


async def test_a_crash_gives_the_slot_back_in_place(engine: AsyncEngine, bench: Workbench, noop: Any) -> None:
    add, ledger = noop(concurrency=1), bench.runtime.ledger
    first, _ = [(await put(engine, add, number)).id for number in range(2)]
    assert await ledger.claim(first, "w") is not None
    assert await ledger.admit(["t.noop:*"]) == []
    await change(engine, first, lease_until=PAST)
    await bells(bench)
    await bench.sweep()
    assert await bells(bench) == [first]
    assert await ledger.claim(first, "w2") is not None


async def test_a_retry_frees_its_slot_and_keeps_its_place(engine: AsyncEngine, bench: Workbench, noop: Any) -> None:
    add, ledger = noop(concurrency=1), bench.runtime.ledger
    first, second, third = [(await put(engine, add, number)).id for number in range(3)]
    claim = await ledger.claim(first, "w")
    assert claim is not None
    await ledger.settle(claim, RetryAt(delay=3600, definite=True))
    assert [message.id for message in await ledger.admit(["t.noop:*"])] == [second]
    await finish(ledger, await ledger.claim(second, "w"))
    await change(engine, first, due_at=PAST)
    assert [message.id for message in await ledger.admit(["t.noop:*"])] == [first]
    await finish(ledger, await ledger.claim(first, "w"))
    assert [message.id for message in await ledger.admit(["t.noop:*"])] == [third]


async def test_a_requeued_message_stands_in_line_again(engine: AsyncEngine, bench: Workbench, noop: Any) -> None:
    add, ledger = noop(concurrency=1, max_crashes=1), bench.runtime.ledger
    first, second = [(await put(engine, add, number)).id for number in range(2)]
    assert await ledger.claim(first, "w") is not None
    await change(engine, first, lease_until=PAST, begun=1)
    await bench.sweep()
    assert (await look(engine, second)).admitted
    assert await ledger.requeue([first], by="me") == {first}
    await bench.sweep()
    assert not (await look(engine, first)).admitted
    assert await ledger.claim(first, "w") is None
    await ledger.cancel(second)
    assert [message.id for message in (await bench.sweep()).admitted] == [first]


async def test_keys_do_not_wait_for_each_other(engine: AsyncEngine, bench: Workbench, noop: Any) -> None:
    add = noop(concurrency=Concurrency(1, key=lambda what, tenant=0: tenant))
    ids = [(await put(engine, add, number, tenant=number % 3)).id for number in range(9)]
    assert sorted(await bells(bench)) == sorted(ids[:3])


async def test_many_processes_never_run_more_than_allowed(engine: AsyncEngine, bench: Workbench, noop: Any) -> None:
    """Eight workers take whatever they are rung for; every claim and settle checks how many run."""
    add, ledgers = noop(concurrency=3), [Ledger(engine) for _ in range(4)]
    async with AsyncSession(engine) as session:
        for number in range(40):
            await add.enqueue(session, number)
        await session.commit()
    await bells(bench)
    most, done = 0, 0

    async def work(ledger: Ledger) -> None:
        nonlocal most, done
        while done < 40:
            async with engine.connect() as connection:
                text = "SELECT id FROM messages WHERE state = 'queued' ORDER BY random() LIMIT 3"
                wanted = list((await connection.execute(sa.text(text))).scalars())
            for id in wanted:
                if (claim := await ledger.claim(id, "w")) is not None:
                    most = max(most, await count(engine, "state = 'running'"))
                    await finish(ledger, claim)
                    done += 1
                    await ledger.admit(["t.noop:*"])

    await asyncio.wait_for(asyncio.gather(*(work(ledger) for ledger in ledgers for _ in range(2))), 60)
    assert most <= 3
    for ledger in ledgers:
        await ledger.close()


async def test_no_more_start_per_period_whenever_workers_come(engine: AsyncEngine, bench: Workbench, noop: Any) -> None:
    add, ledger = noop(rate="3/h"), bench.runtime.ledger
    ids = [(await put(engine, add, number)).id for number in range(7)]
    assert sorted(await bells(bench)) == sorted(ids[:3])
    assert (await bench.sweep()).admitted == []  # admitted and not started yet: no more may pile up
    for id in ids[:3]:
        await finish(ledger, await ledger.claim(id, "w"))
    assert (await bench.sweep()).admitted == []
    async with engine.begin() as connection:  # an hour after the first two starts
        oldest = "(SELECT ctid FROM message_starts ORDER BY until LIMIT 2)"
        await connection.execute(sa.text(f"UPDATE message_starts SET until = {PAST.text} WHERE ctid IN {oldest}"))
    assert [message.id for message in (await bench.sweep()).admitted] == ids[3:5]


async def test_every_start_counts_a_retry_and_a_crash_too(engine: AsyncEngine, bench: Workbench, noop: Any) -> None:
    add, ledger = noop(rate="2/h"), bench.runtime.ledger
    first, second, _ = [(await put(engine, add, number)).id for number in range(3)]
    claim = await ledger.claim(first, "w")
    assert claim is not None
    await ledger.settle(claim, RetryAt(delay=0, definite=True))
    assert await ledger.claim(second, "w") is not None
    await change(engine, second, lease_until=PAST)
    await bench.sweep()
    assert await count(engine, "state = 'queued' AND NOT admitted") == 3
    assert await ledger.claim(first, "w") is None
    assert await ledger.claim(second, "w") is None


async def test_what_is_not_due_waits_outside_the_line(engine: AsyncEngine, bench: Workbench, noop: Any) -> None:
    add = noop(concurrency=1)
    later = await put(engine, add.options(delay=3600), 1)
    now = await put(engine, add, 2)
    assert await bells(bench) == [now.id]
    assert not (await look(engine, later.id)).admitted


async def test_a_plain_message_pays_nothing(engine: AsyncEngine, bench: Workbench, noop: Any) -> None:
    message = await put(engine, noop(), 1)
    row = await look(engine, message.id)
    assert (row.gate, row.follow, row.slots, row.pace, row.key) == (None,) * 5
    assert await bells(bench) == [message.id]
