"""What ended long ago goes, with its attempts; what waits for a person, or for others, stays."""

import datetime as dt
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from callboard_workers import Done, actor, registry
from callboard_workers.ledger import Ledger, State, pruning
from callboard_workers.ledger.pruning import Pruner, first_id
from callboard_workers.ledger.schema import attempts
from callboard_workers.testing import Workbench
from tests.workers.ledger.rows import PAST, change, look, make, tries

OLD = sa.text("clock_timestamp() - interval '40 days'")


def aged(days: float) -> UUID:
    """An id made so long ago."""
    moment = dt.datetime.now(dt.UTC) - dt.timedelta(days=days)
    return UUID(int=first_id(moment.timestamp()).int | uuid7().int & (1 << 62) - 1)


@pytest.fixture
async def pruner(engine: AsyncEngine) -> AsyncIterator[Pruner]:
    """One that forgets after thirty days."""
    ledger = Ledger(engine)
    yield ledger.pruner(30 * 86_400)
    await ledger.close()


async def left(engine: AsyncEngine) -> set[UUID]:
    async with engine.connect() as connection:
        return set((await connection.execute(sa.text("SELECT id FROM messages"))).scalars())


async def test_what_ended_long_ago_goes_and_nothing_else(engine: AsyncEngine, pruner: Pruner) -> None:
    gone = {await make(engine, state, id=aged(40), finished_at=OLD) for state in ("done", "canceled", "expired")}
    stay = {await make(engine, state, id=aged(40), finished_at=OLD) for state in ("dead", "held", "uncertain")}
    stay |= {await make(engine, "queued", id=aged(40)), await make(engine, "running", id=aged(40))}
    stay |= {await make(engine, "done", id=aged(40), finished_at=PAST)}  # made long ago, done today
    stay |= {await make(engine, "done", id=aged(29), finished_at=PAST)}
    async with engine.begin() as connection:
        for id in gone | stay:
            await connection.execute(attempts.insert().values(message_id=id, epoch=1, outcome="retry"))
    assert (await pruner.step()).messages == 3
    assert await left(engine) == stay
    assert [len(await tries(engine, id)) for id in gone] == [0] * 3
    assert [len(await tries(engine, id)) for id in stay] == [1] * len(stay)


async def test_a_pass_goes_over_everything_in_small_batches_and_then_rests(
    engine: AsyncEngine, pruner: Pruner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "BATCH", 4)
    for at in range(18):
        await make(engine, "dead" if at % 2 else "done", id=aged(60 - at), finished_at=OLD)
    counts = [await pruner.step() for _ in range(6)]
    assert [each.messages for each in counts] == [2, 2, 2, 2, 1, 0]
    assert [each.full for each in counts] == [True] * 4 + [False, False]
    assert len(await left(engine)) == 9
    await make(engine, "done", id=aged(50), finished_at=OLD)
    assert (await pruner.step()).messages == 0  # it rests
    pruner._rests_until = 0
    assert sum([(await pruner.step()).messages for _ in range(3)]) == 1


async def test_members_of_a_group_that_is_not_done_stay(engine: AsyncEngine, pruner: Pruner) -> None:
    groups = [uuid7(), aged(50)]
    members = [aged(40), aged(40)]
    async with engine.begin() as connection:
        for group, member, pending in zip(groups, members, (1, 0), strict=True):
            values = {"g": group, "m": [member], "p": pending}
            await connection.execute(sa.text("INSERT INTO message_groups VALUES (:g, :m, :p, NULL)"), values)
    for group, member in zip(groups, members, strict=True):
        await make(engine, "done", id=member, finished_at=OLD, follow={"group": str(group)})
    await pruner.step()
    assert await left(engine) == {members[0]}
    async with engine.connect() as connection:
        assert list((await connection.execute(sa.text("SELECT id FROM message_groups"))).scalars()) == [groups[0]]


async def test_a_result_goes_when_its_time_is_over_and_its_row_stays(engine: AsyncEngine, bench: Workbench) -> None:
    @actor(name="t.sum", result=3600)
    async def add(a: int, b: int) -> int:
        return a + b

    async with engine.begin() as connection:
        message = await add.enqueue(connection, 1, 2)
    while bench.broker.waiting or not bench.broker.rung:
        await bench.sweep()
        await bench.drain()
    row = await look(engine, message.id)
    assert (row.state, row.result) == ("done", 3)
    assert 3500 < (row.result_until - row.finished_at).total_seconds() <= 3601
    pruner = bench.runtime.ledger.pruner(3600)
    assert (await pruner.step()).results == 0
    with pytest.raises(IntegrityError, match="may not go from done to done"):
        await change(engine, message.id, result=sa.null(), result_until=sa.null(), worker="me")
    with pytest.raises(IntegrityError, match="may not go from done to done"):
        await change(engine, message.id, result=4)
    id = await make(engine, "done", result={"x": 1}, result_until=PAST, finished_at=PAST)
    assert (await pruner.step()).results == 1
    row = await look(engine, id)
    assert (row.state, row.result, row.result_until) == ("done", None, None)
    registry.discard("t.sum")


async def test_a_pass_reads_only_what_is_old(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        values = "webhooks_new_id(), 't.x', 'default', 6, '[[], {}]', 'done', now()"
        columns = "id, actor, queue, priority, args, state, finished_at"
        await connection.execute(
            sa.text(f"INSERT INTO messages ({columns}) SELECT {values} FROM generate_series(1, 5000)")
        )
    ids = [await make(engine, "done", id=aged(40), finished_at=OLD) for _ in range(3)]
    async with engine.connect() as connection:
        raw: Any = (await connection.get_raw_connection()).driver_connection
        await raw.execute("ANALYZE messages")
        floor = first_id((dt.datetime.now(dt.UTC) - dt.timedelta(days=30)).timestamp())
        found = await raw.fetch(f"EXPLAIN ANALYZE {pruning.PRUNE}", pruning.FIRST, floor, 1_000, 30 * 86_400.0)
    plan = [line for (line,) in found]
    assert any("Index Scan" in line and "messages" in line for line in plan)
    assert [line for line in plan if "Seq Scan on messages" in line or "Rows Removed by Filter" in line] == []
    assert len(ids) == 3


async def test_the_sweeper_prunes_and_goes_on_when_it_cannot(engine: AsyncEngine, bench: Workbench) -> None:
    id = await make(engine, "done", id=aged(40), finished_at=OLD)
    await bench.runtime._keeper.sweep()
    assert id not in await left(engine)
    async with engine.begin() as connection:
        await connection.execute(sa.text("DROP TABLE message_groups CASCADE"))
    bench.runtime._keeper._pruner._rests_until = 0  # type: ignore[union-attr]
    await bench.runtime._keeper.sweep()
    assert State.DONE == "done"
    assert Done().result is None
