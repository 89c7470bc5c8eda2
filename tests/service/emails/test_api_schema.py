"""The table is what the code declares."""

from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy.ext.asyncio import AsyncEngine

from service.broadcasts import schemas as bulk
from service.emails import examples, schemas
from service.emails.batch.schemas import BatchOut, BatchRequest
from service.emails.insert_columns import COLUMNS
from service.emails.models import emails
from service.templates import examples as template_examples
from service.templates import schemas as library


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


@pytest.mark.parametrize(
    ("example", "kind"),
    [
        (examples.REQUEST, schemas.EmailRequest),
        (examples.EMAIL, schemas.EmailOut),
        (examples.PAGE, schemas.EmailPage),
        (examples.EVENTS, schemas.EventList),
        (template_examples.PREVIEW, library.PreviewRequest),
        (examples.BULK, bulk.BulkRequest),
        (examples.BULK_ACCEPTED, bulk.BulkOut),
        (examples.ROWS, bulk.RowsOut),
        (template_examples.TEMPLATE_IN, library.TemplateIn),
        (template_examples.TEMPLATE, library.TemplateDetail),
        (examples.BATCH, BatchRequest),
        (examples.BATCH_ACCEPTED, BatchOut),
        (template_examples.TEMPLATES, library.TemplateList),
    ],
)
def test_an_example_has_every_field_and_no_other(example: dict[str, Any], kind: type[msgspec.Struct]) -> None:
    read = msgspec.json.decode(msgspec.json.encode(example), type=kind, strict=True)
    if kind not in {schemas.EmailRequest, library.PreviewRequest, library.TemplateIn, bulk.BulkRequest, BatchRequest}:
        assert msgspec.to_builtins(read).keys() == example.keys()
    if kind is schemas.EmailPage:
        assert msgspec.to_builtins(read)["items"][0].keys() == example["items"][0].keys()
