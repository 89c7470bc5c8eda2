"""The table `transports`: a tenant's own mail servers; passwords are sealed."""

from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import UUID as PgUUID

from service.db.engine import Base

transports = Table(
    "transports",
    Base.metadata,
    Column("id", PgUUID, primary_key=True),
    Column("tenant_id", PgUUID, nullable=False),
    Column("name", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("port", Integer, nullable=False),
    Column("tls", Text, nullable=False),
    Column("verify", Boolean, nullable=False, server_default=true()),
    Column("username", Text),
    Column("password", LargeBinary, comment="sealed"),
    Column(
        "domains",
        ARRAY(Text),
        nullable=False,
        server_default=text("'{}'"),
        comment="senders whose mail it takes; empty: every sender's",
    ),
    Column("pool_size", Integer, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    UniqueConstraint("tenant_id", "name"),
    CheckConstraint("tls IN ('none', 'starttls', 'tls')", name="tls"),
    CheckConstraint("port BETWEEN 1 AND 65535", name="port"),
    CheckConstraint("pool_size BETWEEN 1 AND 20", name="pool_size"),
)


def transport_id(id: UUID) -> str:
    """The API's spelling of a transport's id: `tr_` and 32 hex digits."""
    return f"tr_{id.hex}"
