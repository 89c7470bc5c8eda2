"""The database is what the code thinks it is, and refuses what the state machine refuses."""

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from callboard_workers.ledger.schema import MOVES, TERMINAL, State, metadata
from service.db import migrate
from tests.workers.ledger.rows import change, look, make

MINE = set(metadata.tables)


async def test_migrations_make_the_tables_that_the_code_declares(engine: AsyncEngine) -> None:
    def differences(connection: sa.Connection) -> list[object]:
        options = {
            "compare_server_default": True,
            "include_object": lambda thing, name, kind, reflected, other: kind != "table" or name in MINE,
        }
        return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_migrations_go_down_and_up_again(empty_database: str) -> None:
    engine = create_async_engine(empty_database.replace("postgresql://", "postgresql+asyncpg://"))
    await migrate.upgrade(engine)
    await migrate.downgrade(engine, "base")
    async with engine.connect() as connection:
        left = await connection.scalar(
            sa.text("SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace")
        )
        tables = await connection.scalar(sa.text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"))
    assert (left, tables) == (0, 1)  # alembic_version stays
    await migrate.upgrade(engine)
    assert await migrate.current(engine) == migrate.head()
    await engine.dispose()


def moved(old: State, new: State) -> dict[str, object]:
    values: dict[str, object] = {"state": str(new)}
    if (old, new) == (State.QUEUED, State.RUNNING):
        values |= {"epoch": 1, "worker": "w", "lease_until": sa.text("clock_timestamp()")}
    elif new is State.RUNNING:
        values |= {"worker": "w", "lease_until": sa.text("clock_timestamp()")}
    return values


@pytest.mark.parametrize("old", list(State))
async def test_the_database_allows_exactly_the_moves_of_the_state_machine(engine: AsyncEngine, old: State) -> None:
    for new in State:
        if new is old:
            continue
        id = await make(engine, old)
        if new in MOVES[old]:
            await change(engine, id, **moved(old, new))
            assert (await look(engine, id)).state == new
        else:
            with pytest.raises(IntegrityError, match="may not go from"):
                await change(engine, id, **moved(old, new))
            assert (await look(engine, id)).state == old


@pytest.mark.parametrize("state", sorted(TERMINAL))
async def test_a_terminal_row_never_changes_in_any_column(engine: AsyncEngine, state: State) -> None:
    id = await make(engine, state)
    with pytest.raises(IntegrityError, match="may not go from"):
        await change(engine, id, outcome={"code": 250})


@pytest.mark.parametrize("new", [State.QUEUED, State.DEAD, State.CANCELED, State.EXPIRED])
async def test_past_the_point_of_no_return_only_a_definite_answer_moves_a_row(engine: AsyncEngine, new: State) -> None:
    id = await make(engine, State.RUNNING, intent=True)
    with pytest.raises(IntegrityError, match="no definite answer"):
        await change(engine, id, state=str(new), intent=False, error={"type": "Timeout"})
    await change(engine, id, state=str(new), intent=False, error={"type": "Refused", "definite": True})


async def test_intent_is_not_taken_back_while_running(engine: AsyncEngine) -> None:
    id = await make(engine, State.RUNNING, intent=True)
    with pytest.raises(IntegrityError, match="intent stands"):
        await change(engine, id, intent=False)


async def test_intent_is_only_announced_by_a_running_attempt(engine: AsyncEngine) -> None:
    id = await make(engine)
    with pytest.raises(IntegrityError, match="announce intent"):
        await change(engine, id, intent=True)


async def test_an_epoch_never_falls_and_a_claim_raises_it_by_one(engine: AsyncEngine) -> None:
    id = await make(engine, epoch=4)
    with pytest.raises(IntegrityError, match="epoch"):
        await change(engine, id, epoch=3)
    for epoch in (4, 6):
        with pytest.raises(IntegrityError, match="epoch"):
            await change(engine, id, **(moved(State.QUEUED, State.RUNNING) | {"epoch": epoch}))


async def test_a_running_row_has_a_worker_and_a_lease(engine: AsyncEngine) -> None:
    id = await make(engine)
    with pytest.raises(IntegrityError, match="messages_lease"):
        await change(engine, id, state="running", epoch=1)
