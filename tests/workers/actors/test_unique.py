"""Messages that are kept apart by a key: once, for a time, or the last one. On real rows."""

import asyncio
import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from uuid_utils.compat import uuid7

from callboard_workers import Actor, Debounce, Done, Duplicate, Unique
from callboard_workers.testing import Workbench
from tests.workers.ledger.rows import PAST, change, look
from tests.workers.limiting import count, finish, forgetting, put


@pytest.fixture
def noop() -> Iterator[Callable[..., Actor[Any, Any]]]:
    """Makes the actor `t.noop` with these options; it is forgotten after the test."""
    yield from forgetting()


async def test_a_key_is_taken_until_its_message_is_done(engine: AsyncEngine, bench: Workbench, noop: Any) -> None:
    add = noop(unique=Unique(key=lambda what, tenant=0: what))
    first, other = await put(engine, add, "a"), await put(engine, add, "b")
    assert (await put(engine, add, "a", tenant=1)).id == first.id
    claim = await bench.runtime.ledger.claim(first.id, "w")
    assert (await put(engine, add, "a")).id == first.id  # it runs: still not done
    await finish(bench.runtime.ledger, claim)
    assert (await put(engine, add, "a")).id not in {first.id, other.id}


async def test_a_key_is_taken_until_its_message_starts(engine: AsyncEngine, bench: Workbench, noop: Any) -> None:
    add = noop(unique=Unique(until="start"))
    first = await put(engine, add)
    assert (await put(engine, add)).id == first.id
    assert await bench.runtime.ledger.claim(first.id, "w") is not None
    second = await put(engine, add)
    assert second.id != first.id
    await change(engine, first.id, lease_until=PAST)
    await bench.sweep()  # the first comes back: two wait now, and the key is the second's
    assert (await put(engine, add)).id == second.id
    assert await count(engine, "state = 'queued'") == 2


async def test_a_dead_worker_holds_no_key_for_ever(engine: AsyncEngine, bench: Workbench, noop: Any) -> None:
    add = noop(unique=True, max_crashes=2)
    first = await put(engine, add)
    for _ in range(2):
        assert await bench.runtime.ledger.claim(first.id, "w") is not None
        await change(engine, first.id, lease_until=PAST, begun=1)
        assert (await put(engine, add)).id == first.id
        await bench.sweep()
    assert (await look(engine, first.id)).state == "dead"
    assert (await put(engine, add)).id != first.id


async def test_a_key_is_taken_for_a_time_whatever_becomes_of_its_message(
    engine: AsyncEngine, bench: Workbench, noop: Any
) -> None:
    add = noop(unique=Unique(seconds=3600))
    first = await put(engine, add)
    await bench.drain()
    assert (await put(engine, add)).id == first.id
    assert await count(engine) == 1
    async with engine.begin() as connection:
        await connection.execute(sa.text("UPDATE message_keys SET until = clock_timestamp()"))
    assert (await put(engine, add)).id != first.id
    async with AsyncSession(engine) as session:
        other = noop(unique=Unique(seconds=3600, key=lambda what: what))
        await other.enqueue(session, "rolled back")
    assert await count(engine) == 2
    await put(engine, other, "rolled back")
    assert await count(engine) == 3


@pytest.mark.parametrize("unique", [Unique(conflict="raise"), Unique(conflict="raise", seconds=60)])
async def test_a_taken_key_can_raise(engine: AsyncEngine, bench: Workbench, noop: Any, unique: Unique) -> None:
    add = noop(unique=unique)
    first = await put(engine, add)
    with pytest.raises(Duplicate, match=str(first.id)) as raised:
        await put(engine, add)
    assert raised.value.id == first.id


async def test_the_one_that_waits_takes_the_new_arguments(engine: AsyncEngine, bench: Workbench, noop: Any) -> None:
    add = noop(unique=Unique(until="start", conflict="replace"))
    first = await put(engine, add, 1)
    assert (await put(engine, add, 2)).id == first.id
    claim = await bench.runtime.ledger.claim(first.id, "w")
    assert claim is not None
    assert claim.args == [2]
    third = await put(engine, add, 3)  # the first runs: what comes now is not lost
    assert third.id != first.id


async def test_of_many_writers_at_once_one_row_comes(engine: AsyncEngine, bench: Workbench, noop: Any) -> None:
    for unique in (Unique(), Unique(seconds=60), Unique(until="start", conflict="replace")):
        add = noop(unique=unique)
        async with engine.begin() as connection:
            await connection.execute(sa.text("TRUNCATE messages, message_keys"))
        messages = await asyncio.gather(*(put(engine, add, number) for number in range(20)))
        assert len({message.id for message in messages}) == 1
        assert await count(engine) == 1


async def test_tenants_do_not_share_keys(engine: AsyncEngine, bench: Workbench, noop: Any) -> None:
    for unique in (Unique(), Unique(seconds=60)):
        add = noop(unique=unique)
        ids = {(await put(engine, add.options(tenant_id=tenant))).id for tenant in (uuid7(), uuid7(), None)}
        assert len(ids) == 3
        async with engine.begin() as connection:
            await connection.execute(sa.text("TRUNCATE messages"))


async def test_the_last_one_wins_and_runs_when_it_is_quiet(engine: AsyncEngine, bench: Workbench, noop: Any) -> None:
    add = noop(debounce=Debounce(wait=30, max_wait=100))
    first = await put(engine, add, 1)
    due = (await look(engine, first.id)).due_at
    assert bench.broker.rung == []
    assert (await put(engine, add, 2)).id == first.id
    row = await look(engine, first.id)
    assert row.args == [[2], {}]
    assert due < row.due_at == row.ring_at


async def test_it_is_not_put_off_for_ever(engine: AsyncEngine, bench: Workbench, noop: Any) -> None:
    add = noop(debounce=Debounce(wait=30, max_wait=100))
    first = await put(engine, add, 1)
    await change(engine, first.id, created_at=sa.text("clock_timestamp() - interval '99 s'"))
    await put(engine, add, 2)
    row = await look(engine, first.id)
    assert row.due_at - row.created_at == dt.timedelta(seconds=100)
    await change(engine, first.id, created_at=PAST)
    await put(engine, add, 3)
    await bench.sweep()
    [(_, outcome)] = await bench.drain()
    assert outcome == Done(result=3)
    assert (await put(engine, add, 4)).id != first.id
