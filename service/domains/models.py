"""The table `senders`: the domains of a tenant, their keys, and whether their DNS says what it should."""

from uuid import UUID

from sqlalchemy import Column, DateTime, LargeBinary, Table, Text, UniqueConstraint, func
from sqlalchemy.dialects.postgresql import UUID as PgUUID

from service.db.engine import Base

senders = Table(
    "senders",
    Base.metadata,
    Column("id", PgUUID, primary_key=True),
    Column("tenant_id", PgUUID, nullable=False),
    Column("domain", Text, nullable=False),
    Column("token", Text, nullable=False),
    Column("selector", Text, nullable=False),
    Column("public_key", Text, nullable=False),
    Column("private_key", LargeBinary, nullable=False, comment="PKCS #8, sealed"),
    Column("verified_at", DateTime(timezone=True)),
    Column("checked_at", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    UniqueConstraint("tenant_id", "domain"),
)


def sender_id(id: UUID) -> str:
    """The API's spelling of a sender's id: `sd_` and 32 hex digits."""
    return f"sd_{id.hex}"
