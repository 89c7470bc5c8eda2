"""What the jobs slice stores: plans, organizations, quotas and jobs.

A job has the same uuid as its message in the ledger, where its progress and error are, and it outlives that. `status`,
`result`, `attempts` and `quota` follow `messages.state` by a trigger, in the transaction of
whoever makes the transition, so a job takes from its quota exactly once whatever dies in between.
"""

from enum import StrEnum

from sqlalchemy import (
    CheckConstraint,
    Column,
    Date,
    DateTime,
    ForeignKeyConstraint,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import UUID as PgUUID

from callboard_workers.message import Priority
from service.db.engine import Base

QUEUE = "jobs"
"""The queue of every job; the trigger knows jobs by it."""


class Status(StrEnum):
    """The states of a job as the API tells them."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"

    @property
    def terminal(self) -> bool:
        """Whether nothing will happen any more by itself."""
        return self not in {Status.PENDING, Status.PROCESSING}


class Urgency(StrEnum):
    """The priorities a caller may ask for, the least urgent first."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"

    @property
    def rank(self) -> int:
        """0 for the least urgent."""
        return list(Urgency).index(self)

    @property
    def priority(self) -> Priority:
        """The priority of the message."""
        return Priority(self.value)


_NOW = func.clock_timestamp()


def _moment(name: str) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=False, server_default=_NOW)


plans = Table(
    "plans",
    Base.metadata,
    Column("key", Text, nullable=False),
    Column("rank", SmallInteger, nullable=False, comment="a job type asks for a plan of at least its own rank"),
    Column("priority", Text, nullable=False, comment="the most urgent priority, and the one where none is asked for"),
    Column("jobs_per_month", Integer, nullable=False),
    PrimaryKeyConstraint("key"),
    UniqueConstraint("rank"),
    CheckConstraint("priority IN ('low', 'normal', 'high')", name="priority"),
    CheckConstraint("jobs_per_month >= 0", name="jobs_per_month"),
)

organizations = Table(
    "organizations",
    Base.metadata,
    Column("tenant_id", PgUUID, nullable=False),
    Column("id", Text, nullable=False),
    Column("plan", Text, nullable=False),
    Column("trust_score", SmallInteger, nullable=False, server_default=text("50")),
    Column("job_limit", Integer, comment="jobs a month; null for the plan's"),
    _moment("created_at"),
    _moment("updated_at"),
    PrimaryKeyConstraint("tenant_id", "id"),
    ForeignKeyConstraint(["plan"], ["plans.key"]),
    CheckConstraint("trust_score BETWEEN 0 AND 100", name="trust_score"),
    CheckConstraint("job_limit >= 0", name="job_limit"),
)

quotas = Table(
    "quotas",
    Base.metadata,
    Column("tenant_id", PgUUID, nullable=False),
    Column("organization_id", Text, nullable=False),
    Column("period", Date, nullable=False, comment="the first day of the month, UTC"),
    Column("used", Integer, nullable=False, server_default=text("0")),
    Column("reserved", Integer, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("tenant_id", "organization_id", "period"),
    ForeignKeyConstraint(["tenant_id", "organization_id"], ["organizations.tenant_id", "organizations.id"]),
    CheckConstraint("used >= 0 AND reserved >= 0", name="counts"),
    postgresql_with={"fillfactor": 50},
)

jobs = Table(
    "jobs",
    Base.metadata,
    Column("id", PgUUID, nullable=False),
    Column("tenant_id", PgUUID, nullable=False),
    Column("type", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("status", Text, nullable=False, server_default="pending"),
    Column("organization_id", Text),
    Column("priority", Text, nullable=False),
    Column("cost", SmallInteger, nullable=False, server_default=text("0")),
    Column("quota", Text, comment="what became of its cost; null where it has none"),
    Column("period", Date, comment="the month whose quota it takes from"),
    Column("request_id", Text),
    Column("input", JSONB, nullable=False),
    Column("result", JSONB),
    Column("attempts", Integer, nullable=False, server_default=text("0"), comment="those that ended in an error"),
    Column("scheduled_at", DateTime(timezone=True)),
    Column("finished_at", DateTime(timezone=True)),
    Column("webhook_id", PgUUID, comment="an endpoint that is told of this job's end, whatever it subscribed to"),
    _moment("created_at"),
    _moment("updated_at"),
    PrimaryKeyConstraint("id"),
    ForeignKeyConstraint(["tenant_id", "organization_id"], ["organizations.tenant_id", "organizations.id"]),
    CheckConstraint("mode IN ('live', 'test')", name="mode"),
    CheckConstraint(
        "status IN ('pending', 'processing', 'completed', 'failed', 'canceled', 'expired')",
        name="status",
    ),
    CheckConstraint("priority IN ('low', 'normal', 'high')", name="priority"),
    CheckConstraint("quota IN ('reserved', 'committed', 'released')", name="quota"),
    CheckConstraint("quota IS NULL OR (period IS NOT NULL AND organization_id IS NOT NULL)", name="payer"),
    Index("jobs_tenant_id", "tenant_id", "id"),
    postgresql_with={"fillfactor": 60},
)
