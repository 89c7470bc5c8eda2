"""The accept path: one statement for what is concurrent, one row for what is the same."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from callboard_workers.message import Message
from service.core.errors import Invalid
from service.web.accept import Accepted, Intake, Outcome, Submission
from service.web.accept_sql import Table
from service.web.idempotency import Answer, Once

TENANT = uuid7()
TABLE = Table(
    "orders",
    (("id", "uuid"), ("tenant_id", "uuid"), ("title", "text"), ("tags", "text[]"), ("data", "jsonb"), ("code", "text")),
)


@pytest.fixture
async def orders(engine: AsyncEngine) -> AsyncEngine:
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "CREATE TABLE orders (id uuid PRIMARY KEY, tenant_id uuid NOT NULL, title text NOT NULL,"
                " tags text[] NOT NULL, data jsonb, code text UNIQUE, CHECK (title <> 'poison'))"
            )
        )
    return engine


class Bell:
    """Counts what the publisher is asked to ring for."""

    def __init__(self) -> None:
        self.rung: list[Message] = []
        self.calls = 0

    def __call__(self, messages: Sequence[Message]) -> None:
        self.rung.extend(messages)
        self.calls += 1


def submission(title: str = "x", code: str | None = None, **more: Any) -> Submission:
    id_ = uuid7()
    record = (id_, TENANT, title, ["a,b", 'c"d\\', "{}"], {"n": [1, None]}, code)
    message = Message(id=id_, actor="orders.pack", tenant_id=TENANT, **more)
    answer = Answer(202, {"id": str(id_), "b": 1, "a": 2}, {"Location": f"/v1/orders/{id_}"})
    return Submission(records=[record], messages=[(id_, message)], answer=answer, may_conflict=code is not None)


def once(key: str, body: str = "", tenant: UUID = TENANT, ttl: int = 600) -> Once:
    return Once(tenant, key, hashlib.sha256(body.encode()).digest(), ttl)


async def scalar(engine: AsyncEngine, sql: str) -> Any:
    async with engine.connect() as connection:
        return (await connection.execute(text(sql))).scalar_one()


async def test_a_record_its_ledger_row_and_its_key_are_stored_together(orders: AsyncEngine) -> None:
    bell = Bell()
    got = await Intake(orders, TABLE, bell).submit(TENANT, once("k"), submission("first"))
    assert got.outcome is Outcome.INSERTED
    async with orders.connect() as connection:
        row = (await connection.execute(text("SELECT * FROM orders JOIN messages USING (id)"))).one()
        key = (await connection.execute(text("SELECT * FROM idempotency_keys"))).one()
    assert (row.title, row.tags, row.state, row.actor) == ("first", ["a,b", 'c"d\\', "{}"], "queued", "orders.pack")
    assert key.status == 202
    assert [message.id for message in bell.rung] == [row.id]


async def test_three_thousand_requests_on_five_hundred_keys_are_five_hundred_rows(orders: AsyncEngine) -> None:
    bell = Bell()
    intakes = [Intake(orders, TABLE, bell) for _ in range(2)]  # two processes
    marks = [once(f"key-{number % 500}") for number in range(3000)]
    got = await asyncio.gather(
        *(intakes[number % 2].submit(TENANT, mark, submission()) for number, mark in enumerate(marks))
    )
    assert await scalar(orders, "SELECT count(*) FROM orders") == 500
    assert await scalar(orders, "SELECT count(*) FROM messages") == 500
    assert Counter(answer.outcome for answer in got) == {Outcome.INSERTED: 500, Outcome.REPLAYED: 2500}
    first: dict[str, str] = {}
    for mark, answer in zip(marks, got, strict=True):
        location = answer.answer.headers["Location"]
        assert first.setdefault(mark.key, location) == location
    assert len(bell.rung) == 500


async def test_a_batch_is_one_statement_and_one_commit(orders: AsyncEngine) -> None:
    bell, seen = Bell(), []
    intake = Intake(orders, TABLE, bell)
    await intake.submit(
        TENANT, once("first"), submission()
    )  # the driver learns the array types of a new connection here
    async with orders.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        raw.add_query_logger(lambda record: seen.append(record.query))
    await asyncio.gather(*(intake.submit(TENANT, once(f"k{n}"), submission()) for n in range(150)))
    assert len(seen) == 1
    assert "INSERT INTO orders" in seen[0]
    assert bell.calls == 2
    assert await scalar(orders, "SELECT count(*) FROM orders") == 151


async def test_the_replay_is_the_first_answer_byte_for_byte(orders: AsyncEngine) -> None:
    intake = Intake(orders, TABLE, Bell())
    first = await intake.submit(TENANT, once("k"), submission())
    again = await intake.submit(TENANT, once("k"), submission())
    assert again.outcome is Outcome.REPLAYED
    assert bytes(again.answer.body).startswith(b'{"id":')
    assert str(first.answer.body["id"]) in bytes(again.answer.body).decode()
    assert again.answer.headers == dict(first.answer.headers)


async def test_the_same_key_with_another_body_is_refused_also_within_one_batch(orders: AsyncEngine) -> None:
    intake = Intake(orders, TABLE, Bell())
    got = await asyncio.gather(
        intake.submit(TENANT, once("k", "one"), submission()),
        intake.submit(TENANT, once("k", "two"), submission()),
        return_exceptions=True,
    )
    assert isinstance(got[0], Accepted)
    assert isinstance(got[1], Invalid)
    with pytest.raises(Invalid, match="used for another request"):
        await intake.submit(TENANT, once("k", "three"), submission())


async def test_another_tenant_may_use_the_same_key(orders: AsyncEngine) -> None:
    intake = Intake(orders, TABLE, Bell())
    for tenant in (TENANT, uuid7()):
        assert (await intake.submit(TENANT, once("k", tenant=tenant), submission())).outcome is Outcome.INSERTED


async def test_an_expired_key_is_free_again(orders: AsyncEngine) -> None:
    intake = Intake(orders, TABLE, Bell())
    await intake.submit(TENANT, once("k"), submission())
    async with orders.begin() as connection:
        await connection.execute(text("UPDATE idempotency_keys SET expires_at = now() - interval '1 s'"))
    assert (await intake.submit(TENANT, once("k", "other"), submission())).outcome is Outcome.INSERTED
    assert await scalar(orders, "SELECT count(*) FROM idempotency_keys WHERE expires_at > now()") == 1


async def test_a_poisoned_row_is_alone_in_its_failure(orders: AsyncEngine) -> None:
    intake = Intake(orders, TABLE, Bell())
    jobs = [intake.submit(TENANT, once(f"k{n}"), submission("poison" if n == 77 else "fine")) for n in range(150)]
    got = await asyncio.gather(*jobs, return_exceptions=True)
    assert [n for n, answer in enumerate(got) if isinstance(answer, Exception)] == [77]
    assert await scalar(orders, "SELECT count(*) FROM orders") == 149
    assert await scalar(orders, "SELECT count(*) FROM idempotency_keys") == 149


async def test_a_cancelled_caller_stores_nothing(orders: AsyncEngine) -> None:
    intake = Intake(orders, TABLE, Bell())
    jobs = [asyncio.create_task(intake.submit(TENANT, None, submission())) for _ in range(50)]
    await asyncio.sleep(0)
    for job in jobs[25:]:
        job.cancel()
    await asyncio.gather(*jobs, return_exceptions=True)
    await intake.close()
    assert await scalar(orders, "SELECT count(*) FROM orders") == 25


async def test_a_record_that_is_there_already_gives_its_key_back(orders: AsyncEngine) -> None:
    bell = Bell()
    intake = Intake(orders, TABLE, bell)
    assert (await intake.submit(TENANT, once("a"), submission(code="same"))).outcome is Outcome.INSERTED
    assert (await intake.submit(TENANT, once("b"), submission(code="same"))).outcome is Outcome.RECORD_CONFLICT
    assert (await intake.submit(TENANT, None, submission(code="same"))).outcome is Outcome.RECORD_CONFLICT
    assert await scalar(orders, "SELECT count(*) FROM messages") == 1
    assert await scalar(orders, "SELECT string_agg(key, ',') FROM idempotency_keys") == "a"
    assert len(bell.rung) == 1


async def test_what_is_due_later_is_not_rung_for(orders: AsyncEngine) -> None:
    bell = Bell()
    await Intake(orders, TABLE, bell).submit(TENANT, None, submission(delay=60.0))
    assert bell.rung == []
    assert await scalar(orders, "SELECT due_at > now() + interval '50 s' FROM messages")
