"""How an attempt ended is written once, by whoever owns it, whatever Postgres is doing meanwhile."""

import asyncio
import datetime as dt

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from callboard_workers.ledger import Ledger, State, database, settles
from callboard_workers.ledger.schema import groups
from callboard_workers.ledger.settles import settlement
from callboard_workers.policy import Canceled, DeadLetter, Done, Expired, Ignored, Outcome, RetryAt, Snoozed, Unknown
from tests.workers.ledger.rows import PAST, blocked, change, holder, locked, look, make, tries

FAULT = {"type": "Broken", "message": "it broke"}


async def test_a_plain_success_leaves_no_trace_but_the_state(ledger: Ledger, engine: AsyncEngine) -> None:
    id = await make(engine, State.RUNNING, error=FAULT)
    assert await ledger.settle(holder(id), Done(result={"a": 1})) is State.DONE
    row = await look(engine, id)
    assert (row.state, row.error, row.result, row.outcome, row.lease_until) == ("done", None, None, None, None)
    assert row.finished_at is not None
    assert await tries(engine, id) == []


async def test_a_success_keeps_its_report_and_its_result_where_wanted(ledger: Ledger, engine: AsyncEngine) -> None:
    id = await make(engine, State.RUNNING)
    await ledger.settle(holder(id), Done(result=[1]), report={"code": 250}, keep=True)
    row = await look(engine, id)
    assert (row.outcome, row.result) == ({"code": 250}, [1])
    assert [(each.outcome, each.detail) for each in await tries(engine, id)] == [("done", {"code": 250})]


async def test_a_retry_is_due_later_and_counts_as_an_attempt(ledger: Ledger, engine: AsyncEngine) -> None:
    id = await make(engine, State.RUNNING, rings=7)
    outcome = RetryAt(delay=90, error=FAULT, reason="busy", definite=True)
    assert await ledger.settle(holder(id), outcome, report={"phase": "mail"}) is State.QUEUED
    row = await look(engine, id)
    assert (row.state, row.attempts, row.snoozes, row.crashes, row.rings) == ("queued", 1, 0, 0, 0)
    assert abs(row.due_at - row.ring_at) < dt.timedelta(seconds=1)
    assert dt.timedelta(seconds=85) < row.due_at - dt.datetime.now(dt.UTC) < dt.timedelta(seconds=95)
    assert {key: row.error[key] for key in ("type", "message", "reason")} == FAULT | {"reason": "busy"}
    assert dt.datetime.fromisoformat(row.error["at"]).tzinfo is not None
    [noted] = await tries(engine, id)
    assert (noted.epoch, noted.outcome, noted.worker) == (1, "retry", "w")
    assert noted.detail == {"phase": "mail", "error": FAULT | {"reason": "busy"}}


async def test_a_snooze_counts_as_nothing_but_a_snooze(ledger: Ledger, engine: AsyncEngine) -> None:
    id = await make(engine, State.RUNNING)
    assert await ledger.settle(holder(id), Snoozed(delay=5)) is State.QUEUED
    row = await look(engine, id)
    assert (row.attempts, row.snoozes, row.error) == (0, 1, None)


@pytest.mark.parametrize(
    ("outcome", "state", "attempts"),
    [
        (DeadLetter(error=FAULT, definite=True), State.DEAD, 1),
        (Unknown(error=FAULT), State.UNCERTAIN, 1),
        (Expired(reason="late"), State.EXPIRED, 0),
        (Canceled(reason="asked"), State.CANCELED, 0),
    ],
)
async def test_every_other_end_is_final_and_noted(
    ledger: Ledger, engine: AsyncEngine, outcome: Outcome, state: State, attempts: int
) -> None:
    id = await make(engine, State.RUNNING)
    assert await ledger.settle(holder(id), outcome) is state
    row = await look(engine, id)
    assert (row.state, row.attempts) == (state, attempts)
    assert row.finished_at is not None
    assert len(await tries(engine, id)) == 1


async def test_what_was_not_ours_changes_nothing(ledger: Ledger, engine: AsyncEngine) -> None:
    id = await make(engine, State.RUNNING)
    assert await ledger.settle(holder(id), Ignored(reason="lost")) is None
    assert (await look(engine, id)).state == "running"


@pytest.mark.parametrize("outcome", [Done(), RetryAt(delay=0, definite=True), DeadLetter(definite=True), Unknown()])
@pytest.mark.parametrize("state", [state for state in State if state not in {State.RUNNING, State.UNCERTAIN}])
async def test_a_row_that_left_this_attempt_is_not_touched(
    ledger: Ledger, engine: AsyncEngine, state: State, outcome: Outcome
) -> None:
    id = await make(engine, state, epoch=1)
    before = await look(engine, id)
    assert await ledger.settle(holder(id), outcome) is None
    assert await look(engine, id) == before
    assert await tries(engine, id) == []


async def test_a_late_word_from_an_older_attempt_is_not_heard(ledger: Ledger, engine: AsyncEngine) -> None:
    id = await make(engine, State.RUNNING, epoch=2)
    assert await ledger.settle(holder(id, epoch=1), Done()) is None
    assert (await look(engine, id)).state == "running"


async def test_past_the_fence_a_doubtful_failure_cannot_make_it_run_again(ledger: Ledger, engine: AsyncEngine) -> None:
    id = await make(engine, State.RUNNING, intent=True)
    assert await ledger.settle(holder(id), RetryAt(delay=0), fenced=True) is None
    assert (await look(engine, id)).state == "running"
    assert await ledger.settle(holder(id), Unknown(), fenced=True) is State.UNCERTAIN


@pytest.mark.parametrize(
    ("outcome", "state"), [(RetryAt(delay=1, definite=True), "queued"), (DeadLetter(definite=True), "dead")]
)
async def test_past_the_fence_a_definite_no_is_believed(
    ledger: Ledger, engine: AsyncEngine, outcome: Outcome, state: str
) -> None:
    id = await make(engine, State.RUNNING, intent=True)
    await ledger.settle(holder(id), outcome, fenced=True)
    row = await look(engine, id)
    assert (row.state, row.intent, row.error["definite"]) == (state, False, True)


@pytest.mark.parametrize(
    ("outcome", "state"), [(Done(), "done"), (RetryAt(delay=1, definite=True), "queued"), (Unknown(), "uncertain")]
)
async def test_a_late_answer_settles_the_doubt_that_the_sweeper_cast(
    ledger: Ledger, engine: AsyncEngine, outcome: Outcome, state: str
) -> None:
    id = await make(engine, State.UNCERTAIN, epoch=1, intent=True)
    await ledger.settle(holder(id), outcome, fenced=True)
    assert (await look(engine, id)).state == state


@pytest.mark.parametrize("outcome", [RetryAt(delay=0, definite=True), Snoozed(delay=0, definite=True)])
async def test_what_is_to_be_canceled_does_not_run_again(ledger: Ledger, engine: AsyncEngine, outcome: Outcome) -> None:
    id = await make(engine, State.RUNNING, cancel_requested=True)
    assert await ledger.settle(holder(id), outcome) is State.CANCELED


async def test_what_cannot_be_stored_does_not_keep_a_message_from_settling(ledger: Ledger, engine: AsyncEngine) -> None:
    ids = [await make(engine, State.RUNNING) for _ in range(5)]
    reports: list[dict[str, object]] = [{"a": "\x00"}, {"b": "\ud800"}, {"c": object()}, {"d": {1, 2}}, {"e": 10**4000}]
    states = await asyncio.gather(
        *(ledger.settle(holder(id), Done(), report=report) for id, report in zip(ids, reports, strict=True))
    )
    assert set(states) == {State.DONE}
    assert (await look(engine, ids[0])).outcome == {"a": "\ufffd"}


async def test_what_comes_together_is_settled_in_few_statements(
    ledger: Ledger, engine: AsyncEngine, sent: list[str]
) -> None:
    ids = [await make(engine, State.RUNNING) for _ in range(150)]
    outcomes: list[Outcome] = [Done(), RetryAt(delay=1, definite=True), DeadLetter(definite=True)]
    states = await asyncio.gather(*(ledger.settle(holder(id), outcomes[n % 3]) for n, id in enumerate(ids)))
    assert states == [State.DONE, State.QUEUED, State.DEAD] * 50
    assert len(sent) <= 2


async def test_settling_waits_out_a_postgres_that_drops_its_connections(ledger: Ledger, engine: AsyncEngine) -> None:
    id = await make(engine, State.RUNNING)
    async with locked(engine, id):
        settle = asyncio.create_task(ledger.settle(holder(id), Done()))
        for _ in range(2):
            pid = await blocked(engine, "WITH item")
            await database.fetch(engine, "SELECT pg_terminate_backend($1)", pid)
    assert await settle is State.DONE


async def test_a_settle_whose_answer_was_lost_is_found_to_be_written(
    ledger: Ledger, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from callboard_workers.ledger import settles

    id = await make(engine, State.RUNNING)
    fetch = settles.fetch
    lost: list[bool] = []

    async def losing(*args: object, **kwargs: object) -> object:
        answer = await fetch(*args, **kwargs)  # type: ignore[arg-type]
        if not lost:
            lost.append(True)
            raise ConnectionResetError("the answer was lost")
        return answer

    monkeypatch.setattr(settles, "fetch", losing)
    assert await ledger.settle(holder(id), RetryAt(delay=60, error=FAULT, definite=True)) is State.QUEUED
    assert (await look(engine, id)).attempts == 1
    assert len(await tries(engine, id)) == 1


async def test_progress_is_noted_for_its_own_attempt_only_and_the_last_word_wins(
    ledger: Ledger, engine: AsyncEngine
) -> None:
    id = await make(engine, State.RUNNING)
    await asyncio.gather(*(ledger.progress(holder(id), done, 10) for done in range(8)))
    await ledger.progress(holder(id, epoch=9), 0)
    assert (await look(engine, id)).progress == {"done": 7, "total": 10}
    await change(engine, id, state="done")
    await ledger.progress(holder(id), 9, 10)
    assert (await look(engine, id)).progress == {"done": 7, "total": 10}


@pytest.mark.parametrize("policy", ["hold", "resend"])
async def test_a_doubt_about_what_somebody_canceled_never_runs_again_by_itself(
    ledger: Ledger, engine: AsyncEngine, policy: str
) -> None:
    id = await make(engine, "uncertain", epoch=1, cancel_requested=True, uncertain_policy=policy, finished_at=PAST)
    await ledger.sweep(lambda messages: None)
    assert (await look(engine, id)).state == "uncertain"
    late = RetryAt(delay=0, reason="it was not sent", definite=True)
    assert await ledger.settle(holder(id), late, fenced=True) is State.DEAD
    assert (await look(engine, id)).state == "dead"


async def test_batches_that_end_members_of_the_same_groups_in_any_order_never_deadlock(
    engine: AsyncEngine, slow_updates: None
) -> None:
    """Each batch settles a member of every group; which group comes first differs from batch to batch."""
    slow = "CREATE TRIGGER slowly BEFORE UPDATE ON message_groups FOR EACH ROW EXECUTE FUNCTION slowly()"
    number = 4
    groups_of = [uuid7() for _ in range(number)]
    async with engine.begin() as connection:
        await connection.execute(sa.text(slow))
        for group in groups_of:
            values = {"id": group, "members": [], "pending": number, "callback": sa.null()}
            await connection.execute(groups.insert().values(values))
    batches = []
    for turn in range(number):
        order = groups_of[turn:] + groups_of[:turn]
        ids = [await make(engine, State.RUNNING, follow={"group": str(group)}) for group in order]
        batches.append([settlement(holder(id), Done()) for id in ids])
    answers = await asyncio.gather(*(settles.settle(engine, [each for each in batch if each]) for batch in batches))
    assert answers == [[State.DONE] * number] * number
    async with engine.connect() as connection:
        assert list((await connection.execute(sa.select(groups.c.pending))).scalars()) == [0] * number
