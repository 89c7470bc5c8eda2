"""A message is written in its caller's transaction, and its doorbell rings when, and only when, that is committed."""

import asyncio
import datetime as dt
from collections.abc import Sequence

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from uuid_utils.compat import uuid7

from callboard_workers.ledger import Ledger, inserts, rows
from callboard_workers.message import Message, Priority
from tests.workers.ledger.rows import change, look


def message(**fields: object) -> Message:
    return Message(**({"actor": "tests.noop"} | fields))  # type: ignore[arg-type]


async def count(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return int((await connection.execute(sa.text("SELECT count(*) FROM messages"))).scalar_one())


async def test_a_row_holds_what_the_message_says(ledger: Ledger, engine: AsyncEngine) -> None:
    tenant = uuid7()
    sent = message(
        args=(1, "ä"),
        kwargs={"b": [None]},
        queue="email",
        priority=Priority.HIGH,
        tenant_id=tenant,
        headers={"request_id": "r-1", "root_id": "x"},
        max_crashes=7,
        uncertain="resend",
        expires=60.0,
        key="k",
    )
    async with engine.begin() as connection:
        assert await ledger.insert(connection, [sent]) == {sent.id}
    row = await look(engine, sent.id)
    assert (row.state, row.epoch, row.intent, row.attempts, row.crashes) == ("queued", 0, False, 0, 0)
    assert (row.actor, row.queue, row.priority, row.tenant_id, row.key) == ("tests.noop", "email", 3, tenant, "k")
    assert (row.args, row.headers) == ([[1, "ä"], {"b": [None]}], {"request_id": "r-1", "root_id": "x"})
    assert (row.request_id, row.max_crashes, row.uncertain_policy) == ("r-1", 7, "resend")
    assert dt.timedelta(seconds=59) < row.expires_at - row.due_at < dt.timedelta(seconds=61)


async def test_when_it_is_due_is_decided_by_postgres(ledger: Ledger, engine: AsyncEngine) -> None:
    at = dt.datetime(2031, 5, 1, 12, tzinfo=dt.UTC)
    now, later, moment = message(), message(delay=90.0), message(due_at=at)
    async with engine.begin() as connection:
        await ledger.insert(connection, [now, later, moment])
    first, second, third = [await look(engine, each.id) for each in (now, later, moment)]
    assert dt.timedelta(seconds=rows.FIRST_RING - 1) < first.ring_at - first.due_at < dt.timedelta(seconds=6)
    assert dt.timedelta(seconds=89) < second.due_at - first.due_at < dt.timedelta(seconds=91)
    assert third.due_at == third.ring_at == at
    assert [each.rings for each in (first, second, third)] == [1, 0, 0], "its sender rings for what is due now"


async def test_what_is_there_already_is_left_alone(ledger: Ledger, engine: AsyncEngine) -> None:
    sent = message()
    async with engine.begin() as connection:
        assert await ledger.insert(connection, [sent, message(id=sent.id)]) == {sent.id}
        assert await ledger.insert(connection, [sent]) == set()


async def test_a_key_is_borne_by_one_unfinished_message_of_an_actor_and_tenant(
    ledger: Ledger, engine: AsyncEngine
) -> None:
    first, tenant = message(key="k"), uuid7()
    async with engine.begin() as connection:
        await ledger.insert(connection, [first])
        assert await ledger.insert(connection, [message(key="k")]) == set()
        assert await inserts.standing(connection, message(key="k")) == first.id
        others = [
            message(key="other"),
            message(key="k", actor="tests.other"),
            message(key="k", tenant_id=tenant),
            message(),
        ]
        assert len(await ledger.insert(connection, others)) == 4
    await change(engine, first.id, state="canceled")
    async with engine.begin() as connection:
        again = message(key="k")
        assert await ledger.insert(connection, [again]) == {again.id}
        assert await inserts.standing(connection, message()) is None


async def test_many_messages_take_few_statements(ledger: Ledger, engine: AsyncEngine) -> None:
    statements: list[str] = []

    def heard(connection: object, cursor: object, statement: str, *rest: object) -> None:
        statements.append(statement)

    sa.event.listen(engine.sync_engine, "before_cursor_execute", heard)
    async with engine.begin() as connection:
        await ledger.insert(connection, [message() for _ in range(2_500)])
    assert sum("INSERT INTO messages" in statement for statement in statements) == 3
    assert await count(engine) == 2_500


async def test_another_statement_can_write_rows_beside_its_own(engine: AsyncEngine) -> None:
    both = [message(), message()]
    sql = (
        "WITH chosen AS (SELECT unnest($1::uuid[]) AS id LIMIT $2)"
        f" {rows.INSERT} {rows.SELECT} {rows.unnest(3)} WHERE m.id IN (SELECT id FROM chosen) RETURNING id"
    )
    values = ([each.id for each in both], 1, *rows.columns([rows.row(each) for each in both]))
    async with engine.begin() as connection:
        assert (await connection.exec_driver_sql(sql, values)).scalars().all() == [both[0].id]


def test_no_rows_are_as_many_empty_columns() -> None:
    assert rows.columns([]) == tuple([] for _ in rows.COLUMNS)


async def test_text_that_postgres_cannot_hold_is_the_callers_error(ledger: Ledger, engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError):
            await ledger.insert(connection, [message(args=("\x00",))])


class Bell:
    def __init__(self, engine: AsyncEngine) -> None:
        self.heard: list[Message] = []

    def __call__(self, messages: Sequence[Message]) -> None:
        self.heard.extend(messages)


async def put(where: AsyncSession | AsyncConnection, bell: Bell) -> Message:
    sent = message()
    await inserts.insert(where, [sent])
    inserts.after_commit(where, bell, [sent])
    return sent


async def test_a_session_rings_after_its_commit_once(engine: AsyncEngine) -> None:
    bell = Bell(engine)
    async with AsyncSession(engine) as session:
        first = await put(session, bell)
        second = await put(session, bell)
        assert bell.heard == []
        await session.commit()
        assert bell.heard == [first, second]
        third = await put(session, bell)
        await session.commit()
    assert bell.heard == [first, second, third]


async def test_a_session_rolled_back_or_closed_rings_nothing(engine: AsyncEngine) -> None:
    bell = Bell(engine)
    async with AsyncSession(engine) as session:
        await put(session, bell)
        await session.rollback()
        kept = await put(session, bell)
        await session.commit()
        await put(session, bell)
    assert bell.heard == [kept]
    assert await count(engine) == 1


async def test_a_savepoint_is_no_commit(engine: AsyncEngine) -> None:
    bell = Bell(engine)
    async with AsyncSession(engine) as session:
        async with session.begin_nested():
            sent = await put(session, bell)
        assert bell.heard == []
        await session.commit()
    assert bell.heard == [sent]


async def test_a_commit_that_fails_rings_nothing(engine: AsyncEngine) -> None:
    bell = Bell(engine)
    async with engine.begin() as connection:
        await connection.execute(sa.text("CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)"))
    async with AsyncSession(engine) as session:
        await put(session, bell)
        await session.execute(sa.text("INSERT INTO late VALUES (1), (1)"))
        with pytest.raises(DBAPIError):
            await session.commit()
    assert (bell.heard, await count(engine)) == ([], 0)


async def test_a_connection_rings_once_its_commit_was_answered(engine: AsyncEngine) -> None:
    bell = Bell(engine)
    async with engine.begin() as connection:
        await connection.exec_driver_sql(
            "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS"
            " $$BEGIN PERFORM pg_sleep(1.5); RETURN NEW; END$$"
        )
        await connection.exec_driver_sql(
            "CREATE CONSTRAINT TRIGGER slowly AFTER INSERT ON messages DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION slowly()"
        )
    async with engine.connect() as connection:
        sent = await put(connection, bell)
        commit = asyncio.create_task(connection.commit())
        await asyncio.sleep(0.1)
        assert (commit.done(), bell.heard) == (False, []), "rung while Postgres was still committing"
        await commit
        for _ in range(6_000):
            if bell.heard:
                break
            await asyncio.sleep(0.005)
    assert bell.heard == [sent]


async def test_a_connection_rolled_back_rings_nothing(engine: AsyncEngine) -> None:
    bell = Bell(engine)
    async with engine.connect() as connection:
        await put(connection, bell)
        await connection.rollback()
        await put(connection, bell)
    await asyncio.sleep(0.02)
    assert (bell.heard, await count(engine)) == ([], 0)
