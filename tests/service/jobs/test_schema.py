"""The tables are what the code declares; the examples are what the routes take and answer."""

from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy.ext.asyncio import AsyncEngine

from service.activities import schemas as activities
from service.jobs import examples, models, schemas

TABLES = {"plans", "organizations", "quotas", "jobs"}


async def test_migrations_make_the_tables_that_the_code_declares(engine: AsyncEngine) -> None:
    def differences(connection: sa.Connection) -> list[object]:
        options = {
            "compare_server_default": True,
            "include_object": lambda thing, name, kind, reflected, other: kind != "table" or name in TABLES,
        }
        return compare_metadata(MigrationContext.configure(connection, opts=options), models.jobs.metadata)

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []


@pytest.mark.parametrize(
    ("example", "kind"),
    [
        (examples.REQUEST, schemas.JobRequest),
        (examples.JOB, schemas.JobOut),
        (examples.COMPLETED, schemas.JobOut),
        (examples.CANCELED, schemas.JobOut),
        (examples.PAGE, schemas.JobPage),
        (examples.ORGANIZATION_REQUEST, schemas.OrganizationRequest),
        (examples.ORGANIZATION, schemas.OrganizationOut),
        (examples.QUOTA, schemas.QuotaOut),
        (examples.CUSTOM_REQUEST, activities.CustomActivities),
        (examples.CUSTOM_JOB, activities.CustomJob),
        (examples.POLLED, activities.PolledJob),
    ],
)
def test_an_example_has_every_field_and_no_other(example: dict[str, Any], kind: type[msgspec.Struct]) -> None:
    read = msgspec.json.decode(msgspec.json.encode(example), type=kind, strict=True)
    if kind is not schemas.JobRequest:
        assert msgspec.to_builtins(read).keys() == example.keys()
