"""The table `email_events`: what was heard of mails after they were sent; rows are only ever added."""

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import UUID as PgUUID

from service.db.engine import Base

email_events = Table(
    "email_events",
    Base.metadata,
    Column("id", PgUUID, primary_key=True),
    Column("tenant_id", PgUUID, nullable=False),
    Column("email_id", PgUUID, nullable=False),
    Column("key", Text, nullable=False, comment="what makes a report one that was told before"),
    Column("event", Text, nullable=False),
    Column("address", Text),
    Column("detail", JSONB, nullable=False, server_default=text("'{}'")),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    UniqueConstraint("tenant_id", "key"),
    ForeignKeyConstraint(["email_id"], ["emails.id"], ondelete="CASCADE"),
    CheckConstraint(
        "event IN ('delivered', 'bounced', 'delayed', 'complained', 'unsubscribed', 'resubscribed')", name="event"
    ),
    Index("email_events_email_id", "email_id"),
    Index("email_events_bounced", "tenant_id", "address", "at", postgresql_where=text("event = 'bounced'")),
)
