"""What a bulk is: the words of its record, its gate, and how its id is written.

`bulks` holds one row for each; `bulk_recipients` who is to get a mail, each address once. A worker turns recipients
into mails a window at a time, so that what is paused, corrected or canceled later has not been written yet. A bulk has
the same uuid as the message that does so.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal
from uuid import UUID

import msgspec
from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import UUID as PgUUID

from callboard_workers.message import Gate
from service.db.engine import Base
from service.templates.schemas import TemplateRef

ACTOR = "emails.expand_bulk"
AT_ONCE = 1_000
"""Mails of one bulk that are under way at once: others have their turn between them."""

_NOW = func.clock_timestamp()
_COUNTS = ("total", "duplicates", "refused", "expanded", "last_seq", "next_seq")

bulks = Table(
    "bulks",
    Base.metadata,
    Column("id", PgUUID, primary_key=True),
    Column("tenant_id", PgUUID, nullable=False),
    Column("mode", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("name", Text),
    Column("request_id", Text),
    Column("request", JSONB, nullable=False),
    Column("pace", Integer),
    Column("period", Double),
    Column("scheduled_at", DateTime(timezone=True)),
    *(Column(name, Integer, nullable=False, server_default=text("0")) for name in _COUNTS),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("ended_at", DateTime(timezone=True), comment="when it was seen first that nothing of it waits any more"),
    CheckConstraint("mode IN ('live', 'test')", name="mode"),
    CheckConstraint("status IN ('open', 'running', 'paused', 'canceled')", name="status"),
    Index("bulks_tenant_id", "tenant_id", "id"),
    Index("bulks_running", "id", postgresql_where=text("ended_at IS NULL AND status = 'running'")),
    postgresql_with={"fillfactor": 70},
)

bulk_recipients = Table(
    "bulk_recipients",
    Base.metadata,
    Column("bulk_id", PgUUID, primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("tenant_id", PgUUID, nullable=False),
    Column("address", Text, nullable=False),
    Column("to_", Text, nullable=False),
    Column("locale", Text),
    Column("variables", JSONB, nullable=False, server_default=text("'{}'")),
    UniqueConstraint("bulk_id", "address", name="uq_bulk_recipients_address"),
    ForeignKeyConstraint(["bulk_id"], ["bulks.id"], name="fk_bulk_recipients_bulk_id_bulks", ondelete="CASCADE"),
)


class BulkStatus(StrEnum):
    """Where a bulk stands, as the API tells it."""

    OPEN = "open"
    """Recipients are still being added."""
    SCHEDULED = "scheduled"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    """Nothing waits any more; the counts say what became of the mails."""
    CANCELED = "canceled"


class Common(msgspec.Struct, frozen=True, kw_only=True):
    """What all mails of a bulk have in common; kept as JSON in `bulks.request`."""

    template: TemplateRef
    sender: str | None = None
    reply_to: list[str] = []
    headers: dict[str, str] = {}
    tags: list[str] = []
    metadata: dict[str, Any] = {}
    category: str | None = None
    unsubscribe: bool | None = None
    expires_at: datetime | None = None
    uncertain: Literal["hold", "resend"] = "hold"


class Bulk(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `bulks`; `pace` mails per `period` seconds, where it is throttled.

    `last_seq` is the number of the last recipient, `next_seq` that of the last one whose mail is written.
    """

    id: UUID
    tenant_id: UUID
    mode: str
    status: str
    name: str | None
    request_id: str | None
    request: Common
    pace: int | None
    period: float | None
    scheduled_at: datetime | None
    total: int
    duplicates: int
    refused: int
    expanded: int
    last_seq: int
    next_seq: int
    created_at: datetime
    updated_at: datetime

    @property
    def gate(self) -> Gate:
        """What each mail of the bulk has to be admitted to."""
        return Gate(gate_name(self.id), slots=AT_ONCE, pace=self.pace, period=self.period)


def gate_name(id: UUID) -> str:
    """The name of a bulk's gate."""
    return f"bulk:{id}"
