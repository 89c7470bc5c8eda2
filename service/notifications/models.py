"""What the notifications slice stores: notifications, their deliveries, keys against repetition, digests.

A notification has the same uuid as its message in the ledger, whose actor delivers it. Its columns of counts, and
`after_no`, move with each chunk of deliveries, in the same transaction: whoever goes on after a crash goes on there.

A delivery is one notification for one user through one channel; its primary key is the promise that there is no second
one. Those of the inbox are the feed. They get their numbers (`seq`) when the feed is looked at: numbering them as they
are written would make every fan-out take a lock for each user.
"""

from enum import StrEnum

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    Index,
    Integer,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import UUID as PgUUID

from service.db.engine import Base

ACTOR = "notifications.fan_out"
QUEUE = "notifications"

COUNTS = (
    "resolved",
    "overlapping",
    "excluded",
    "deduplicated",
    "inbox_delivered",
    "inbox_muted",
    "email_queued",
    "email_collected",
    "email_muted",
    "email_suppressed",
    "email_unreachable",
    "email_disabled",
)
"""What a fan-out counts; docs/notifications.md says what each means."""


class Status(StrEnum):
    """The states of a notification as the API tells them."""

    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def terminal(self) -> bool:
        """Whether nothing will happen any more by itself."""
        return self not in {Status.QUEUED, Status.PROCESSING}


def _texts(name: str) -> Column[list[str]]:
    return Column(name, ARRAY(Text), nullable=False, server_default=text("'{}'"))


def _time(name: str, *, now: bool = False) -> Column[object]:
    return Column(
        name, DateTime(timezone=True), nullable=not now, server_default=func.clock_timestamp() if now else None
    )


notifications = Table(
    "notifications",
    Base.metadata,
    Column("id", PgUUID, primary_key=True),
    Column("tenant_id", PgUUID, nullable=False),
    Column("mode", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("category", Text),
    Column("actor", Text),
    Column("data", JSONB, nullable=False, server_default=text("'{}'")),
    Column("channels", ARRAY(Text), nullable=False),
    Column("critical", Boolean, nullable=False, server_default=text("false")),
    _texts("users"),
    _texts("topics"),
    Column("organization_id", Text),
    _texts("exclude"),
    Column("dedup_key", Text),
    Column("dedup_window", Double, comment="seconds; null for as long as the key is kept"),
    Column("email", JSONB, comment="the content of its mail, as the route took it"),
    Column("request_id", Text),
    Column(
        "after_no",
        BigInteger,
        nullable=False,
        server_default="0",
        comment="users up to this number were served; what is above is still to come",
    ),
    *(Column(name, BigInteger, nullable=False, server_default="0") for name in COUNTS),
    _time("finished_at"),
    _time("created_at", now=True),
    _time("updated_at", now=True),
    CheckConstraint("mode IN ('live', 'test')", name="mode"),
    CheckConstraint("channels <@ ARRAY['inbox', 'email'] AND cardinality(channels) > 0", name="channels"),
    CheckConstraint("dedup_window IS NULL OR dedup_key IS NOT NULL", name="dedup"),
    Index("notifications_tenant_id", "tenant_id", "id"),
    Index("notifications_request_id", "request_id", postgresql_where=text("request_id IS NOT NULL")),
    postgresql_with={"fillfactor": 60, "toast_tuple_target": 256},
)

deliveries = Table(
    "deliveries",
    Base.metadata,
    Column("notification_id", PgUUID, primary_key=True),
    Column("user_no", BigInteger, primary_key=True, autoincrement=False),
    Column("channel", Text, primary_key=True),
    Column("tenant_id", PgUUID, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("seq", BigInteger, comment="its number in the feed; null until somebody looks"),
    Column("email_id", PgUUID),
    Column("pace", Text, comment="it waits for the digest of this pace; with an email_id it is in that mail"),
    _time("seen_at"),
    _time("read_at"),
    _time("archived_at"),
    CheckConstraint("channel IN ('inbox', 'email')", name="channel"),
    Index("deliveries_feed", "user_no", "seq", postgresql_where=text("channel = 'inbox'")),
    Index(
        "deliveries_collected",
        "user_no",
        "pace",
        postgresql_where=text("channel = 'email' AND pace IS NOT NULL AND email_id IS NULL"),
    ),
    postgresql_with={"fillfactor": 90},
)

notification_keys = Table(
    "notification_keys",
    Base.metadata,
    Column("user_no", BigInteger, primary_key=True, autoincrement=False),
    Column("dedup_key", Text, primary_key=True),
    Column("tenant_id", PgUUID, nullable=False),
    Column("until", DateTime(timezone=True), nullable=False),
    Column("notification_id", PgUUID, nullable=False),
    Index("notification_keys_until", "until"),
)

digests = Table(
    "digests",
    Base.metadata,
    Column("user_no", BigInteger, primary_key=True, autoincrement=False),
    Column("pace", Text, primary_key=True),
    Column("due_at", DateTime(timezone=True), primary_key=True, comment="the end of the period that it collects"),
    Column("tenant_id", PgUUID, nullable=False),
    Column("mode", Text, nullable=False),
    Column("items", Integer, nullable=False, server_default="1"),
    Column("email_id", PgUUID),
    Column("outcome", Text),
    _time("closed_at"),
    CheckConstraint("pace IN ('hourly', 'daily')", name="pace"),
    CheckConstraint("outcome IN ('mailed', 'empty', 'unreachable', 'suppressed', 'disabled')", name="outcome"),
    Index("digests_open", "user_no", "pace", unique=True, postgresql_where=text("closed_at IS NULL")),
    Index("digests_due_at", "due_at", postgresql_where=text("closed_at IS NULL")),
    postgresql_with={"fillfactor": 70},
)
