"""What is stored about people: users, members of organizations, followers of topics, preferences.

The ids of users, organizations and topics are the tenant's own words. A user also has a number, given by the database:
whoever goes through an audience goes by it. People of test keys are apart from those of live keys (`mode`).
"""

from enum import StrEnum

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
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

ANY = "*"
"""The category of a preference for whatever has none of its own."""


class Channel(StrEnum):
    """How a notification reaches somebody."""

    INBOX = "inbox"
    EMAIL = "email"


class Pace(StrEnum):
    """When somebody wants to be told through a channel; an inbox knows only `immediate` and `off`."""

    IMMEDIATE = "immediate"
    HOURLY = "hourly"
    DAILY = "daily"
    OFF = "off"


_NOW = func.clock_timestamp()


def _tenant() -> Column[object]:
    return Column("tenant_id", PgUUID, nullable=False)


def _mode() -> Column[str]:
    return Column("mode", Text, nullable=False)


def _time(name: str) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=False, server_default=_NOW)


users = Table(
    "users",
    Base.metadata,
    Column("no", BigInteger, Identity(always=True), primary_key=True),
    _tenant(),
    _mode(),
    Column("id", Text, nullable=False, comment="the tenant's own word"),
    Column("email", Text, comment="with its display name, as emails.spelling writes it"),
    Column("address", Text, comment="the addr-spec of email"),
    Column("locale", Text),
    Column("timezone", Text, nullable=False, server_default="UTC"),
    Column("attributes", JSONB, nullable=False, server_default=text("'{}'")),
    Column("last_seq", BigInteger, nullable=False, server_default="0", comment="the newest number of the feed"),
    _time("created_at"),
    _time("updated_at"),
    UniqueConstraint("tenant_id", "mode", "id", name="uq_users_tenant_id"),
    CheckConstraint("mode IN ('live', 'test')", name="mode"),
    CheckConstraint("(email IS NULL) = (address IS NULL)", name="email"),
    Index("users_address", "tenant_id", "mode", text("lower(address)")),
    postgresql_with={"fillfactor": 80},
)

members = Table(
    "members",
    Base.metadata,
    Column("tenant_id", PgUUID, primary_key=True),
    Column("mode", Text, primary_key=True),
    Column("organization_id", Text, primary_key=True),
    Column("user_no", BigInteger, ForeignKey(users.c.no, ondelete="CASCADE"), primary_key=True),
    _time("created_at"),
    Index("members_user_no", "user_no"),
)

followers = Table(
    "followers",
    Base.metadata,
    Column("tenant_id", PgUUID, primary_key=True),
    Column("mode", Text, primary_key=True),
    Column("topic", Text, primary_key=True),
    Column("user_no", BigInteger, ForeignKey(users.c.no, ondelete="CASCADE"), primary_key=True),
    _time("created_at"),
    Index("followers_user_no", "user_no"),
)

preferences = Table(
    "preferences",
    Base.metadata,
    Column("user_no", BigInteger, ForeignKey(users.c.no, ondelete="CASCADE"), primary_key=True),
    Column("category", Text, primary_key=True, comment="* for whatever has none of its own"),
    Column("channel", Text, primary_key=True),
    _tenant(),
    Column("pace", Text, nullable=False),
    CheckConstraint("channel IN ('inbox', 'email')", name="channel"),
    CheckConstraint("pace IN ('immediate', 'off') OR (channel = 'email' AND pace IN ('hourly', 'daily'))", name="pace"),
)
