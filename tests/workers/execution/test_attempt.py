"""An attempt runs once, in its own context, and ends in exactly one outcome."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
import structlog
from prometheus_client import REGISTRY
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from structlog.testing import capture_logs
from uuid_utils.compat import uuid7

from callboard_workers import (
    Backoff,
    Context,
    Correlation,
    Dead,
    DeadLetter,
    Delivery,
    Depends,
    Done,
    Expired,
    Ignored,
    LeaseLost,
    Middleware,
    Outcome,
    Retry,
    RetryAt,
    Runtime,
    Snooze,
    Snoozed,
    Uncertain,
    Unknown,
    UnknownActor,
    actor,
    attempt_ids,
    correlation,
    current,
    execute,
    injected,
    registry,
)
from callboard_workers.errors import WorkersError
from callboard_workers.middleware import Execute, defaults
from callboard_workers.testing import Workbench, run_now, workbench
from tests.workers.behaving import Refused, deliver, do, raising
from tests.workers.ledger.rows import PAST, change, look, make, tries

pytestmark = pytest.mark.usefixtures("behaving")


@pytest.mark.parametrize(
    ("error", "fence", "end"),
    [
        (None, False, (Done, "done")),
        (ValueError("x"), False, (RetryAt, "queued")),
        (Refused("x"), False, (DeadLetter, "dead")),
        (Retry(5), False, (RetryAt, "queued")),
        (Snooze(5), False, (Snoozed, "queued")),
        (Dead("x"), False, (DeadLetter, "dead")),
        (Uncertain("x"), False, (Unknown, "uncertain")),
        (LeaseLost("x"), False, (Ignored, "running")),
        (asyncio.CancelledError(), False, (RetryAt, "queued")),
        (ValueError("x"), True, (Unknown, "uncertain")),
        (Refused("x"), True, (Unknown, "uncertain")),
        (asyncio.CancelledError(), True, (Unknown, "uncertain")),
        (Retry(5), True, (RetryAt, "queued")),
        (Snooze(5), True, (Snoozed, "queued")),
        (Dead("x"), True, (DeadLetter, "dead")),
    ],
)
async def test_each_end_becomes_its_outcome_and_its_state(
    bench: Workbench, engine: AsyncEngine, error: BaseException | None, fence: bool, end: tuple[type, str]
) -> None:
    outcome, state = end
    do["what"] = raising(error, fence=fence) if error else 42
    id, found = await deliver(bench, engine)
    assert type(found) is outcome
    row = await look(engine, id)
    assert row.state == state
    assert row.intent is (fence and state == "uncertain")
    assert row.result == (42 if error is None else None)


@pytest.mark.parametrize("durable", [False, True])
async def test_an_attempt_that_is_over_does_not_wait_for_the_garbage_collector(
    bench: Workbench, engine: AsyncEngine, durable: bool
) -> None:
    seen: list[weakref.ref[Context]] = []

    @actor(name="t.brief")
    async def brief() -> None:
        seen.append(weakref.ref(current()))

    id = await make(engine, actor="t.brief") if durable else uuid7()
    gc.disable()
    try:
        outcome = await execute(bench.runtime, Delivery(id=id, actor="t.brief", durable=durable))
        assert isinstance(outcome, Done)
        await bench.runtime.idle()
        await asyncio.sleep(0)
        assert [each() for each in seen] == [None]
    finally:
        gc.enable()


class Large:
    """Stands for a local variable of many megabytes."""


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("durable", [False, True])
async def test_a_failed_attempt_frees_its_local_variables_without_the_garbage_collector(
    bench: Workbench, engine: AsyncEngine, durable: bool, threaded: bool
) -> None:
    seen: list[weakref.ref[Large]] = []

    def fail() -> None:
        large = Large()
        seen.append(weakref.ref(large))
        raise ValueError("x")

    async def fail_on_the_loop() -> None:
        large = Large()
        seen.append(weakref.ref(large))
        raise ValueError("x")

    actor(name="t.large")(fail if threaded else fail_on_the_loop)
    id = await make(engine, actor="t.large") if durable else uuid7()
    gc.disable()
    try:
        outcome = await execute(bench.runtime, Delivery(id=id, actor="t.large", durable=durable))
        assert isinstance(outcome, RetryAt)
        await bench.runtime.idle()
        await asyncio.sleep(0)
        assert [each() for each in seen] == [None]
    finally:
        gc.enable()


async def test_attempts_add_up_to_a_dead_letter(bench: Workbench, engine: AsyncEngine) -> None:
    do["what"] = raising(ValueError("x"))
    id, outcome = await deliver(bench, engine)
    for _ in range(2):
        await change(engine, id, due_at=PAST, ring_at=PAST)
        await bench.sweep()
        [(_, outcome)] = await bench.drain()
    assert isinstance(outcome, DeadLetter)
    row = await look(engine, id)
    assert (row.state, row.attempts) == ("dead", 3)
    assert [each.outcome for each in await tries(engine, id)] == ["retry", "retry", "dead"]


async def test_a_doorbell_for_nothing_is_ignored_and_counted(bench: Workbench, engine: AsyncEngine) -> None:
    labels = {"name": "t.behave", "queue_name": "default"}
    before = REGISTRY.get_sample_value("celery_task_ignored_total", labels) or 0
    outcome = await execute(bench.runtime, Delivery(id=uuid7(), actor="t.behave", durable=True))
    assert isinstance(outcome, Ignored)
    assert "context" not in do
    assert REGISTRY.get_sample_value("celery_task_ignored_total", labels) == before + 1


async def test_the_row_says_which_actor_runs_not_the_doorbell(bench: Workbench, engine: AsyncEngine) -> None:
    @actor(name="t.forged")
    async def forged() -> None:
        raise AssertionError("a doorbell chose the actor")

    id = await make(engine, actor="t.behave")
    assert isinstance(await execute(bench.runtime, Delivery(id=id, actor="t.forged", durable=True)), Done)


async def test_a_row_for_an_actor_unknown_here_is_left_for_a_worker_that_knows_it(
    bench: Workbench, engine: AsyncEngine
) -> None:
    id = await make(engine, actor="t.from_the_future")
    for name in ("t.behave", "t.from_the_future"):
        with pytest.raises(UnknownActor):
            await execute(bench.runtime, Delivery(id=id, actor=name, durable=True))
    row = await look(engine, id)
    assert (row.state, row.crashes, row.attempts) == ("queued", 0, 0)


async def test_arguments_that_do_not_fit_are_a_dead_letter_at_once(bench: Workbench, engine: AsyncEngine) -> None:
    id, outcome = await deliver(bench, engine, args=[["five"], {}])
    assert isinstance(outcome, DeadLetter)
    assert "x: Expected `int`" in (await look(engine, id)).error["message"]
    assert "context" not in do


async def test_an_attempt_knows_where_it_is_and_what_it_sends_inherits_it(
    bench: Workbench, engine: AsyncEngine
) -> None:
    seen: dict[str, Any] = {}

    async def what() -> None:
        seen["child"] = registry.get("t.behave").message()
        seen["logged"] = attempt_ids(None, "info", {"event": "x"})

    do["what"] = what
    tenant = uuid7()
    id = await make(
        engine,
        actor="t.behave",
        attempts=1,
        crashes=2,
        deaths=3,
        isolation=1,
        tenant_id=tenant,
        headers={"request_id": "r", "tenant_id": str(tenant), "root_id": "root"},
    )
    await execute(bench.runtime, Delivery(id=id, actor="t.behave", durable=True))
    context: Context = do["context"]
    assert (context.id, context.attempt, context.crashes, context.epoch) == (id, 2, 2, 1)
    assert (context.request_id, context.tenant_id, context.redelivered) == ("r", tenant, True)
    assert seen["child"].headers == {
        "request_id": "r",
        "tenant_id": str(tenant),
        "parent_id": str(id),
        "root_id": "root",
    }
    assert seen["logged"]["task_id"] == str(id)
    assert seen["logged"]["request_id"] == "r"
    assert correlation.get() == Correlation()
    assert attempt_ids(None, "info", {}) == {}
    with pytest.raises(WorkersError, match="only inside an actor"):
        current()


async def test_what_an_attempt_reports_is_kept_with_it(bench: Workbench, engine: AsyncEngine) -> None:
    async def what() -> None:
        current().report(code=250, text="ok")

    do["what"] = what
    id, _ = await deliver(bench, engine)
    assert (await look(engine, id)).outcome == {"code": 250, "text": "ok"}
    assert [each.detail for each in await tries(engine, id)] == [{"code": 250, "text": "ok"}]


async def test_a_message_without_a_row_ends_in_an_outcome_too(bench: Workbench) -> None:
    do["what"] = raising(ValueError("x"))
    outcomes = [
        await execute(bench.runtime, Delivery(id=uuid7(), actor="t.behave", args=(1,), retries=retries))
        for retries in range(3)
    ]
    assert [type(outcome) for outcome in outcomes] == [RetryAt, RetryAt, DeadLetter]


async def test_a_message_without_a_row_that_is_late_is_not_run() -> None:
    import datetime as dt

    async with workbench() as bench:
        late = Delivery(id=uuid7(), actor="t.behave", expires_at=dt.datetime.now(dt.UTC))
        assert isinstance(await execute(bench.runtime, late), Expired)
    assert "context" not in do


async def test_dependencies_are_opened_for_the_attempt_and_closed_after_it_with_its_error(
    bench: Workbench, engine: AsyncEngine
) -> None:
    trail: list[str] = []

    async def session() -> AsyncIterator[AsyncSession]:
        runtime_engine = Runtime.of_loop().engine
        assert runtime_engine is not None
        async with AsyncSession(runtime_engine) as opened:
            try:
                yield opened
            except ValueError:
                trail.append("rolled back")
                raise
            else:
                trail.append("committed")

    async def twice(session: Annotated[AsyncSession, Depends(session)]) -> AsyncSession:
        return session

    @actor(name="t.uses")
    async def uses(
        fail: bool,
        *,
        session: Annotated[AsyncSession, Depends(session)] = injected,
        same: Annotated[AsyncSession, Depends(twice)] = injected,
    ) -> bool:
        if fail:
            raise ValueError("x")
        return session is same

    assert await run_now(uses, False) == Done(result=True)
    assert isinstance(await run_now(uses, True), RetryAt)
    assert trail == ["committed", "rolled back"]


async def test_the_onion_is_worn_in_order_and_yours_is_innermost(engine: AsyncEngine) -> None:
    trail: list[str] = []

    class Mine(Middleware):
        def startup(self, runtime: Runtime) -> None:
            trail.append("startup")

        def shutdown(self, runtime: Runtime) -> None:
            trail.append("shutdown")

        async def execute(self, context: Context, next: Execute) -> Outcome:
            trail.append("before")
            try:
                return await next(context)
            finally:
                trail.append("after")

        def outcome(self, context: Context, outcome: Outcome) -> None:
            trail.append(type(outcome).__name__)

        async def send(self, message: Any, next: Any) -> Any:
            trail.append("send")
            return await next(message)

    do["what"] = raising(ValueError("x"))
    async with workbench(engine, middleware=[*defaults(), Mine()]) as bench:
        async with engine.begin() as connection:
            await registry.get("t.behave").enqueue(connection)
        while not bench.broker.waiting:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        await bench.drain()
        await registry.get("t.behave").send()
    assert trail == ["startup", "send", "before", "after", "RetryAt", "send", "shutdown"]


async def test_one_line_is_logged_for_each_attempt_and_never_an_argument(bench: Workbench, engine: AsyncEngine) -> None:
    do["what"] = raising(Refused("no"))
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        id, _ = await deliver(bench, engine, args=[[424242], {}], due_at=PAST)
    [line] = [line for line in lines if line["event"].startswith("task_")]
    assert (line["event"], line["task_id"], line["task_name"], line["attempt"]) == ("task_dead", str(id), "t.behave", 1)
    assert line["error"] == "Refused"
    assert line["wait_ms"] > 3_000_000
    assert line["run_ms"] < 60_000
    assert "424242" not in repr(lines)


async def test_a_broken_hook_of_a_middleware_harms_no_message(engine: AsyncEngine) -> None:
    class Broken(Middleware):
        def outcome(self, context: Context, outcome: Outcome) -> None:
            raise RuntimeError("broken")

    async with workbench(engine, middleware=[*defaults(), Broken()]) as bench:
        id, outcome = await deliver(bench, engine)
    assert isinstance(outcome, Done)
    assert (await look(engine, id)).state == "done"


async def test_a_thousand_at_once_take_few_statements_and_few_connections(
    bench: Workbench, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from callboard_workers.ledger import claims, settles
    from callboard_workers.ledger.database import fetch

    counted: list[str] = []

    async def counting(*args: Any, **kwargs: Any) -> Any:
        counted.append(args[1])
        return await fetch(*args, **kwargs)

    monkeypatch.setattr(claims, "fetch", counting)
    monkeypatch.setattr(settles, "fetch", counting)
    messages = [registry.get("t.behave").message(n) for n in range(1_000)]
    async with engine.begin() as connection:
        await bench.runtime.ledger.insert(connection, messages)
    deliveries = [Delivery(id=message.id, actor="t.behave", durable=True) for message in messages]
    outcomes = await asyncio.gather(*(execute(bench.runtime, delivery) for delivery in deliveries))
    assert {type(outcome) for outcome in outcomes} == {Done}
    assert len(counted) < 60
    assert Backoff().max == 3_600


async def test_enqueueing_rings_after_the_commit_what_is_due_now(bench: Workbench, engine: AsyncEngine) -> None:
    made = registry.get("t.behave")
    async with AsyncSession(engine) as session:
        now = await made.enqueue(session, 1)
        await made.options(delay=60).enqueue(session, 2)
        assert bench.broker.rung == []
        await session.commit()
        assert bench.broker.rung == [now]
        bench.assert_sent(made, 1)
        first = await made.options(key="k").enqueue(session, 3)
        again = await made.options(key="k").enqueue(session, 4)
        assert again.id == first.id
        await session.rollback()
    assert bench.broker.rung == [now]


async def test_enqueueing_works_where_no_runtime_is(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        message = await registry.get("t.behave").enqueue(connection, 1)
    assert (await look(engine, message.id)).state == "queued"
