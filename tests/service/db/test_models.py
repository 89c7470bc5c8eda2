"""What the code thinks the tables are is what the migrations make of them."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.ext.asyncio import AsyncEngine

import service
from callboard_workers.ledger import schema as ledger
from service.db import migrate
from service.db.engine import Base, create_engine
from service.settings import Settings

SERVICE = Path(service.__file__).parent
MODELS = [".".join(file.relative_to(SERVICE.parent).with_suffix("").parts) for file in SERVICE.rglob("models.py")]


def differences(connection: sa.Connection) -> list[Any]:
    """Return what would have to be migrated so that the tables of the database are those of the code, no more."""
    for name in MODELS:
        importlib.import_module(name)
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    both: Any = [Base.metadata, ledger.metadata]  # a MetaData or several; its annotation says one
    return list(compare_metadata(context, both))


async def test_every_table_has_a_model_that_is_what_the_migrations_make(engine: AsyncEngine) -> None:
    assert {"service.jobs.models", "service.broadcasts.models"} <= set(MODELS)
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_a_table_without_a_model_is_a_difference(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(sa.text("CREATE TABLE unknown (id uuid PRIMARY KEY)"))
        [(what, table)] = await connection.run_sync(differences)
    assert (what, table.name) == ("remove_table", "unknown")


@pytest.mark.timeout(60)
async def test_the_newest_migration_can_be_taken_back_and_made_again(database: str) -> None:
    engine = create_engine(Settings.from_env({"DATABASE_URL": database}), role=None)
    try:
        await migrate.downgrade(engine, "-1")
        assert await migrate.current(engine) != migrate.head()
        await migrate.upgrade(engine)
        assert await migrate.current(engine) == migrate.head()
        async with engine.connect() as connection:
            assert await connection.run_sync(differences) == []
    finally:
        await engine.dispose()
