"""An attempt ends in time, stops when it must, and never pretends that nothing happened."""

import asyncio
import contextlib
import threading
import time
from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from uuid_utils.compat import uuid7

from callboard_workers import (
    Canceled,
    Delivery,
    Depends,
    Done,
    Ignored,
    LeaseLost,
    Outcome,
    RetryAt,
    State,
    Unknown,
    actor,
    current,
    execute,
)
from callboard_workers.common.threads import Threads
from callboard_workers.testing import Workbench, run_now, workbench
from tests.workers.behaving import OPTIONS, behave, deliver, do
from tests.workers.ledger.rows import PAST, change, look, make

pytestmark = pytest.mark.usefixtures("behaving")


async def test_at_its_limit_an_attempt_is_cancelled(bench: Workbench, engine: AsyncEngine) -> None:
    actor(**(OPTIONS | {"time_limit": 0.05}))(behave)
    do["what"] = lambda: asyncio.sleep(30)
    id, outcome = await deliver(bench, engine)
    assert isinstance(outcome, RetryAt)
    assert outcome.error == {"type": "TimeLimitExceeded", "message": "did not finish within its time limit of 0.05 s"}
    assert (await look(engine, id)).state == "queued"
    assert bench.runtime.stuck == {}


async def test_at_its_limit_past_the_fence_an_attempt_is_in_doubt(bench: Workbench, engine: AsyncEngine) -> None:
    actor(**(OPTIONS | {"time_limit": 1.0}))(behave)

    async def what() -> None:
        await current().fence()
        await asyncio.sleep(30)

    do["what"] = what
    id, outcome = await deliver(bench, engine)
    assert isinstance(outcome, Unknown)
    assert (await look(engine, id)).state == "uncertain"


async def test_what_is_finished_while_being_cancelled_is_finished(bench: Workbench, engine: AsyncEngine) -> None:
    actor(**(OPTIONS | {"time_limit": 0.3}))(behave)

    async def what() -> str:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return "just in time"
        return "never"

    do["what"] = what
    _, outcome = await deliver(bench, engine)
    assert outcome == Done(result="just in time")


async def test_an_attempt_that_does_not_let_go_is_written_off_and_fenced_off(
    bench: Workbench, engine: AsyncEngine
) -> None:
    actor(**(OPTIONS | {"time_limit": 0.3}))(behave)
    free, fenced_off = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def what() -> None:
        while not free.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await free.wait()
        try:
            await current().fence()
        except LeaseLost as error:
            fenced_off.set_result(error)

    do["what"] = what
    id, outcome = await deliver(bench, engine)
    assert isinstance(outcome, RetryAt)
    [context] = bench.runtime.stuck.values()
    assert context.id == id
    assert context.cancelled
    free.set()
    assert isinstance(await asyncio.wait_for(fenced_off, 60), LeaseLost)
    async with asyncio.timeout(60):
        while bench.runtime.stuck:  # noqa: ASYNC110 (nothing tells)
            await asyncio.sleep(0.01)


async def test_a_stopping_worker_gives_the_message_back_at_no_cost(bench: Workbench, engine: AsyncEngine) -> None:
    begun = asyncio.Event()

    async def what() -> None:
        begun.set()
        await asyncio.sleep(30)

    do["what"] = what
    id = await make(engine, actor="t.behave")
    task = asyncio.create_task(execute(bench.runtime, Delivery(id=id, actor="t.behave", durable=True)))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    row = await look(engine, id)
    assert (row.state, row.attempts, row.crashes) == ("queued", 0, 0)
    assert bench.runtime.active == {}


async def test_a_stopping_worker_owns_up_to_what_may_have_happened(bench: Workbench, engine: AsyncEngine) -> None:
    begun = asyncio.Event()

    async def what() -> None:
        await current().fence()
        begun.set()
        await asyncio.sleep(30)

    do["what"] = what
    id = await make(engine, actor="t.behave")
    task = asyncio.create_task(execute(bench.runtime, Delivery(id=id, actor="t.behave", durable=True)))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await look(engine, id)).state == "uncertain"


async def running(bench: Workbench, engine: AsyncEngine) -> tuple[UUID, asyncio.Task[Outcome]]:
    begun = asyncio.Event()

    async def what() -> None:
        begun.set()
        await asyncio.sleep(30)

    do["what"] = what
    id = await make(engine, actor="t.behave")
    task = asyncio.create_task(execute(bench.runtime, Delivery(id=id, actor="t.behave", durable=True)))
    await begun.wait()
    return id, task


async def test_what_is_canceled_while_it_runs_is_stopped_at_the_next_renewal(
    bench: Workbench, engine: AsyncEngine
) -> None:
    id, task = await running(bench, engine)
    await bench.runtime.ledger.cancel(id)
    await bench.runtime._keeper.renew()
    assert isinstance(await task, Canceled)
    row = await look(engine, id)
    assert (row.state, row.attempts) == ("canceled", 0)


async def test_an_attempt_whose_lease_was_lost_stops_and_leaves_its_heir_alone(
    bench: Workbench, engine: AsyncEngine
) -> None:
    id, task = await running(bench, engine)
    await change(engine, id, lease_until=PAST)
    await bench.runtime.ledger.sweep(lambda messages: None)
    heir = await bench.runtime.ledger.claim(id, "heir", 30.0)
    assert heir is not None
    await bench.runtime._keeper.renew()
    assert await task == Ignored(reason="lease lost")
    row = await look(engine, id)
    assert (row.state, row.worker, row.epoch) == ("running", "heir", 2)


async def test_past_the_fence_an_attempt_is_let_finish_whatever_its_lease(
    bench: Workbench, engine: AsyncEngine
) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def what() -> str:
        await current().fence()
        begun.set()
        await go.wait()
        return "sent"

    do["what"] = what
    id = await make(engine, actor="t.behave")
    task = asyncio.create_task(execute(bench.runtime, Delivery(id=id, actor="t.behave", durable=True)))
    await begun.wait()
    await change(engine, id, state="uncertain", finished_at=PAST)
    await bench.runtime._keeper.renew()
    go.set()
    assert isinstance(await task, Done)
    assert (await look(engine, id)).state == State.DONE


async def test_a_worker_renews_and_sweeps_by_itself(engine: AsyncEngine) -> None:
    async with workbench(engine, lease=3.0, sweep_every=0.05) as bench:
        await bench.runtime.start(worker=True)
        id, task = await running(bench, engine)
        due = await make(engine, actor="t.behave", ring_at=PAST)
        first = (await look(engine, id)).lease_until
        async with asyncio.timeout(60):
            while (await look(engine, id)).lease_until < first + timedelta(seconds=2):  # noqa: ASYNC110 (nothing tells)
                await asyncio.sleep(0.05)
            while due not in [message.id for message in bench.broker.rung]:  # noqa: ASYNC110 (nothing tells)
                await asyncio.sleep(0.05)
        assert not task.done(), "its lease was not kept"
        assert (await look(engine, id)).epoch == 1
        task.cancel()
        await asyncio.wait({task})


async def test_a_plain_function_runs_in_a_thread_with_the_context_of_its_attempt() -> None:
    @actor(name="t.plain")
    def plain(x: int) -> tuple[str, int]:
        return threading.current_thread().name, x + current().attempt

    outcome = await run_now(plain, 1)
    assert isinstance(outcome, Done)
    assert outcome.result[0].startswith("actor")
    assert outcome.result[1] == 2


async def test_a_plain_function_is_told_that_its_time_is_over_and_holds_its_slot_until_it_ends() -> None:
    ended = threading.Event()

    @actor(name="t.slow", time_limit=0.05, grace=5.0)
    def slow() -> None:
        while not current().cancelled:
            time.sleep(0.005)
        ended.set()

    assert isinstance(await run_now(slow), RetryAt)
    assert ended.is_set()


async def test_a_time_limit_does_not_count_the_wait_for_a_thread() -> None:
    go, opened = threading.Event(), []

    async def connection() -> int:
        opened.append(go.is_set())
        return 1

    @actor(name="t.first", time_limit=None)
    def first() -> None:
        assert go.wait(30)

    @actor(name="t.second", time_limit=0.3, max_retries=0)
    def second(connection: Annotated[int, Depends(connection)]) -> None:
        assert current().remaining is not None

    async with workbench() as bench:
        bench.runtime.threads = Threads(1, "only")
        attempts = [
            asyncio.create_task(execute(bench.runtime, Delivery(id=uuid7(), actor=name)))
            for name in ("t.first", "t.second")
        ]
        await asyncio.sleep(0.6)
        assert not any(attempt.done() for attempt in attempts)
        go.set()
        assert [type(outcome) for outcome in await asyncio.gather(*attempts)] == [Done, Done]
    assert opened == [True], "what waits for a thread opens nothing yet"


async def test_a_canceled_attempt_that_comes_to_its_fence_is_canceled_at_once(
    bench: Workbench, engine: AsyncEngine
) -> None:
    async def what() -> None:
        await bench.runtime.ledger.cancel(current().id)
        await current().fence()
        raise AssertionError("it passed")

    do["what"] = what
    id, outcome = await deliver(bench, engine)
    assert isinstance(outcome, Canceled)
    assert (await look(engine, id)).state == "canceled"


async def test_what_was_done_by_the_time_a_worker_stops_is_not_forgotten(bench: Workbench, engine: AsyncEngine) -> None:
    begun = asyncio.Event()

    async def what() -> str:
        begun.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return "done all the same"
        return "never"

    do["what"] = what
    id = await make(engine, actor="t.behave")
    task = asyncio.create_task(execute(bench.runtime, Delivery(id=id, actor="t.behave", durable=True)))
    await begun.wait()
    task.cancel()
    assert await task == Done(result="done all the same")
    assert (await look(engine, id)).state == "done"


async def test_attempts_that_hold_every_connection_still_get_through_their_fences(database: str) -> None:
    small = create_async_engine(database.replace("postgresql://", "postgresql+asyncpg://"), pool_size=2, max_overflow=0)

    async def what() -> None:
        async with small.connect() as connection:
            await connection.exec_driver_sql("SELECT 1")
            await current().fence()

    do["what"] = what
    async with workbench(small) as bench:
        ids = [await make(small, actor="t.behave") for _ in range(8)]
        deliveries = [Delivery(id=id, actor="t.behave", durable=True) for id in ids]
        outcomes = await asyncio.wait_for(asyncio.gather(*(execute(bench.runtime, each) for each in deliveries)), 60)
    assert {type(outcome) for outcome in outcomes} == {Done}
    await small.dispose()


async def test_a_doorbell_that_comes_while_postgres_is_away_is_left_to_the_sweeper(engine: AsyncEngine) -> None:
    nowhere = create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/none")
    async with workbench(nowhere) as bench:
        outcome = await execute(bench.runtime, Delivery(id=uuid7(), actor="t.behave", durable=True))
    assert isinstance(outcome, Ignored)
    assert "sweeper" in outcome.reason


async def test_an_attempt_that_has_ended_is_not_stopped_while_it_settles(
    bench: Workbench, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = bench.runtime.ledger
    settling, go, settle = asyncio.Event(), asyncio.Event(), ledger.settle

    async def slowly(*args: Any, **kwargs: Any) -> Any:
        settling.set()
        await go.wait()
        return await settle(*args, **kwargs)

    monkeypatch.setattr(ledger, "settle", slowly)
    id = await make(engine, actor="t.behave")
    task = asyncio.create_task(execute(bench.runtime, Delivery(id=id, actor="t.behave", durable=True)))
    await settling.wait()
    await change(engine, id, lease_until=PAST)
    await ledger.sweep(lambda messages: None)
    await bench.runtime._keeper.renew()
    go.set()
    assert isinstance(await task, Ignored)
    assert (await look(engine, id)).state == "queued"
