"""The tables beside `emails` are what the code declares; their routes' examples are what they take and answer."""

from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy.ext.asyncio import AsyncEngine

from service.domains import examples as senders
from service.domains.schemas import SenderList, SenderOut, SenderRequest
from service.emails.models import emails
from service.emails.reports import examples as inbound
from service.emails.reports.schemas import InboundOut, InboundRequest
from service.suppressions import examples as suppressions
from service.suppressions.schemas import (
    SuppressionBatch,
    SuppressionBatchOut,
    SuppressionOut,
    SuppressionPage,
    SuppressionRequest,
)
from service.transports import examples as transports
from service.transports.schemas import ProbeOut, TransportList, TransportOut, TransportRequest

TABLES = {"suppressions", "email_events", "senders", "transports"}


async def test_migrations_make_the_tables_that_the_code_declares(engine: AsyncEngine) -> None:
    def differences(connection: sa.Connection) -> list[object]:
        options = {
            "compare_server_default": True,
            "include_object": lambda thing, name, kind, reflected, other: kind != "table" or name in TABLES,
        }
        return compare_metadata(MigrationContext.configure(connection, opts=options), emails.metadata)

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []


@pytest.mark.parametrize(
    ("example", "kind"),
    [
        (suppressions.REQUEST, SuppressionRequest),
        (suppressions.BATCH, SuppressionBatch),
        (suppressions.SUPPRESSION, SuppressionOut),
        (suppressions.PAGE, SuppressionPage),
        (suppressions.BATCH_OUT, SuppressionBatchOut),
        (inbound.REQUEST, InboundRequest),
        (inbound.ANSWER, InboundOut),
        (senders.REQUEST, SenderRequest),
        (senders.SENDER, SenderOut),
        (senders.VERIFIED, SenderOut),
        (senders.LIST, SenderList),
        (transports.REQUEST, TransportRequest),
        (transports.TRANSPORT, TransportOut),
        (transports.LIST, TransportList),
        (transports.PROBE, ProbeOut),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_an_example_has_every_field_and_no_other(example: dict[str, Any], kind: type[msgspec.Struct]) -> None:
    read = msgspec.json.decode(msgspec.json.encode(example), type=kind, strict=True)
    if not kind.__name__.endswith(("Request", "Batch")):
        assert msgspec.to_builtins(read).keys() == example.keys()
