"""What the code thinks the tables are is what the migrations make of them."""

from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.ext.asyncio import AsyncEngine

from service import migrate, slices
from service.db import Base, create_engine
from service.settings import Settings

MODELS = [module.__name__ for module in slices.modules("models")]


def differences(connection: sa.Connection) -> list[Any]:
    """What would have to be migrated for the tables of every slice's `models.py`."""
    ours = set(Base.metadata.tables)

    def is_ours(thing: Any, _name: str | None, kind: str, _reflected: bool, _other: Any) -> bool:
        return (thing if kind == "table" else thing.table).name in ours

    options = {"include_object": is_ours, "compare_type": True}
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata))


async def test_every_model_is_what_the_migrations_make(engine: AsyncEngine) -> None:
    assert MODELS
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []


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
