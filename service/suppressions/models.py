"""The table `suppressions`: who gets no mail of a tenant, of what kind, and why."""

from enum import StrEnum
from uuid import UUID

from sqlalchemy import CheckConstraint, Column, DateTime, Index, Table, Text, UniqueConstraint, func
from sqlalchemy.dialects.postgresql import UUID as PgUUID

from service.db.engine import Base


class Reason(StrEnum):
    """Why an address gets no mail."""

    HARD_BOUNCE = "hard_bounce"
    COMPLAINT = "complaint"
    UNSUBSCRIBE = "unsubscribe"
    MANUAL = "manual"


suppressions = Table(
    "suppressions",
    Base.metadata,
    Column("id", PgUUID, primary_key=True),
    Column("tenant_id", PgUUID, nullable=False),
    Column("mode", Text, nullable=False),
    Column("address", Text, nullable=False, comment="addr-spec, its ASCII letters small"),
    Column("category", Text, comment="null: every mail, transactional as well"),
    Column("reason", Text, nullable=False),
    Column("note", Text),
    Column("email_id", PgUUID, comment="the mail that led to it"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    UniqueConstraint("tenant_id", "mode", "address", "category", postgresql_nulls_not_distinct=True),
    CheckConstraint("mode IN ('live', 'test')", name="mode"),
    CheckConstraint("reason IN ('hard_bounce', 'complaint', 'unsubscribe', 'manual')", name="reason"),
    Index("suppressions_list", "tenant_id", "mode", "id"),
)


def suppression_id(id: UUID) -> str:
    """The API's spelling of a suppression's id: `su_` and 32 hex digits."""
    return f"su_{id.hex}"
