"""The table is what the code declares."""

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy.ext.asyncio import AsyncEngine

from service.emails.models import emails
from service.emails.rows import COLUMNS


async def test_migrations_make_the_table_that_the_code_declares(engine: AsyncEngine) -> None:
    def differences(connection: sa.Connection) -> list[object]:
        options = {
            "compare_server_default": True,
            "include_object": lambda thing, name, kind, reflected, other: kind != "table" or name == emails.name,
        }
        return compare_metadata(MigrationContext.configure(connection, opts=options), emails.metadata)

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []


def test_what_is_stored_at_acceptance_are_columns_of_the_table() -> None:
    assert {name for name, _ in COLUMNS} <= set(emails.columns.keys())
