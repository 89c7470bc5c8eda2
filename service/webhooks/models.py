"""What the webhooks slice stores: endpoints, events, and the delivery of one event to one endpoint.

Events are written by triggers on the tables they are about, in the transaction of the change. A delivery has the same
uuid as its message in the ledger, where its state, its attempts and what the endpoint answered are.
"""

from enum import StrEnum
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import UUID as PgUUID

from service.db.engine import Base

ACTOR = "webhooks.deliver"
QUEUE = "webhooks"
SLOTS = 10
"""Deliveries to one endpoint that run at a time, in all workers together; `webhooks_emit` says the same."""


class Status(StrEnum):
    """The states of a delivery as the API tells them."""

    PENDING = "pending"
    SENDING = "sending"
    DELIVERED = "delivered"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def terminal(self) -> bool:
        """Whether nothing will happen any more by itself."""
        return self not in {Status.PENDING, Status.SENDING}


_NOW = func.clock_timestamp()


def _moment(name: str) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=False, server_default=_NOW)


endpoints = Table(
    "webhook_endpoints",
    Base.metadata,
    Column("id", PgUUID, primary_key=True),
    Column("tenant_id", PgUUID, nullable=False),
    Column("mode", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("description", Text, nullable=False, server_default=""),
    Column("events", ARRAY(Text), nullable=False, server_default=text("'{*}'")),
    Column("enabled", Boolean, nullable=False, server_default=text("true")),
    Column("disabled_reason", Text),
    Column("secret", LargeBinary, nullable=False, comment="sealed"),
    Column("previous_secret", LargeBinary, comment="sealed; signs as well until previous_until"),
    Column("previous_until", DateTime(timezone=True)),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("failing_since", DateTime(timezone=True)),
    Column("resting_until", DateTime(timezone=True)),
    _moment("created_at"),
    _moment("updated_at"),
    UniqueConstraint("tenant_id", "mode", "url"),
    CheckConstraint("mode IN ('live', 'test')", name="mode"),
    Index("webhook_endpoints_enabled", "tenant_id", postgresql_where=text("enabled")),
    postgresql_with={"fillfactor": 70},
)

events = Table(
    "webhook_events",
    Base.metadata,
    Column("id", PgUUID, primary_key=True),
    Column("tenant_id", PgUUID, nullable=False),
    Column("mode", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("request_id", Text),
    Column("data", JSONB, nullable=False),
    _moment("created_at"),
)

deliveries = Table(
    "webhook_deliveries",
    Base.metadata,
    Column("id", PgUUID, primary_key=True, comment="also the id of its message in the ledger, where its state is"),
    Column("tenant_id", PgUUID, nullable=False),
    Column("endpoint_id", PgUUID, nullable=False),
    Column("event_id", PgUUID, nullable=False),
    _moment("created_at"),
    Index("webhook_deliveries_endpoint_id", "endpoint_id", "id"),
    Index("webhook_deliveries_event_id", "event_id"),
)


def endpoint_id(id: UUID) -> str:
    """The API's spelling of an endpoint's id: `wh_` and 32 hex digits."""
    return f"wh_{id.hex}"


def event_id(id: UUID) -> str:
    """The API's spelling of an event's id, which is the header `webhook-id`: `ev_` and 32 hex digits."""
    return f"ev_{id.hex}"


def delivery_id(id: UUID) -> str:
    """The API's spelling of a delivery's id: `dl_` and 32 hex digits."""
    return f"dl_{id.hex}"


def gate(endpoint: UUID) -> str:
    """The gate that every delivery to an endpoint passes."""
    return f"{ACTOR}:{endpoint}"
