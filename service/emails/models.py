"""What the emails slice stores: the table `emails`; what belongs to it stands in the rooms below.

One row is one call of the API and one message on the wire: an SMTP transaction with all its recipients (`to_`, `cc`,
`bcc`), as in Resend, so that "to: a, cc: b" stays one mail that names both. A recipient that the server refuses while
it accepts others is kept in `recipient_replies`; one that it defers also gets a row of its own that `follows` this one,
with the same Message-ID. (Different mails to many people are different rows.)

A row has the same uuid as its message in the ledger: `em_<hex>` and `task_id` are two spellings of one id, a join needs
no second index, and there is no state in which a mail has lost its message. `status` follows `messages.state` by a
trigger, whoever makes the transition; what is heard of a mail later stands in `delivery` and wins over `sent`.
`created_at` is the millisecond inside the uuid, so a range of times is a range of keys.
"""

from enum import StrEnum

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
    false,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import UUID as PgUUID

from callboard_workers.message import Priority
from service.db.engine import Base
from service.domains.models import senders
from service.emails.reports.models import email_events
from service.suppressions.models import suppressions
from service.transports.models import transports

__all__ = ["ACTOR", "Lane", "Status", "email_events", "emails", "senders", "suppressions", "transports"]

ACTOR = "emails.send_email"


class Status(StrEnum):
    """The states of a mail as the API tells them; `scheduled` is `queued` with its time still to come."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"
    UNCERTAIN = "uncertain"
    SUPPRESSED = "suppressed"
    DELIVERED = "delivered"
    BOUNCED = "bounced"
    COMPLAINED = "complained"

    @property
    def terminal(self) -> bool:
        """Whether nothing will happen any more by itself (an uncertain mail waits for evidence or a decision)."""
        return self not in {Status.SCHEDULED, Status.QUEUED, Status.SENDING}


class Lane(StrEnum):
    """The speed class of a mail."""

    CRITICAL = "critical"
    DEFAULT = "default"
    BULK = "bulk"

    @property
    def priority(self) -> Priority:
        """The priority of the lane's messages."""
        return _PRIORITIES[self]


_PRIORITIES = {Lane.CRITICAL: Priority.CRITICAL, Lane.DEFAULT: Priority.NORMAL, Lane.BULK: Priority.LOW}


def _texts(name: str, comment: str | None = None) -> Column[list[str]]:
    return Column(name, ARRAY(Text), nullable=False, server_default=text("'{}'"), comment=comment)


_NOW = func.clock_timestamp()

emails = Table(
    "emails",
    Base.metadata,
    Column("id", PgUUID, primary_key=True),
    Column("tenant_id", PgUUID, nullable=False),
    Column("mode", Text, nullable=False),
    Column("status", Text, nullable=False, server_default="queued"),
    Column("lane", Text, nullable=False, server_default="default"),
    Column("request_id", Text),
    Column("category", Text),
    Column("dedup_key", Text),
    Column("follows", PgUUID, comment="the mail of which this one serves the recipients that were put off"),
    Column("message_id", Text, nullable=False, comment="the Message-ID header, with its angle brackets"),
    Column("sender", Text, nullable=False),
    _texts("to_"),
    _texts("cc"),
    _texts("bcc"),
    _texts("reply_to"),
    _texts("recipients", "the envelope: each distinct addr-spec of to, cc and bcc"),
    Column("subject", Text),
    Column("rendered_subject", Text, comment="of a template, as the last attempt rendered it"),
    Column("html", Text),
    Column("text", Text),
    Column("template_key", Text),
    Column("template_locale", Text),
    Column("template_variables", JSONB),
    Column("headers", JSONB, nullable=False, server_default=text("'{}'")),
    _texts("tags"),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'")),
    Column(
        "attachments", JSONB, nullable=False, server_default=text("'[]'"), comment="names, types and sizes in order"
    ),
    Column(
        "attachment_data", LargeBinary, comment="of mails before attachment_files: their bytes, one after the other"
    ),
    Column("scheduled_at", DateTime(timezone=True)),
    Column("expires_at", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("template_version", Integer, comment="of a template that the tenant wrote; null: built in"),
    Column("bulk_id", PgUUID),
    Column("resend_of", PgUUID, comment="the mail of which this one is another copy, asked for"),
    Column("unsubscribable", Boolean, nullable=False, server_default=false(), comment="whether its reader may say no"),
    Column("delivery", Text, comment="what was heard of it since it was sent"),
    Column(
        "dedup_until", DateTime(timezone=True), comment="from when on another mail may take the dedup_key; null: never"
    ),
    Column("provider_id", Text, comment="the id that Amazon SES replaced the Message-ID with"),
    Column(
        "recipient_replies",
        JSONB,
        comment="by recipient: how the server refused it beside others; this email serves it no more",
    ),
    CheckConstraint("mode IN ('live', 'test')", name="mode"),
    CheckConstraint(
        "status IN ('queued', 'sending', 'sent', 'failed', 'canceled', 'expired', 'uncertain', 'suppressed',"
        " 'delivered', 'bounced', 'complained')",
        name="status",
    ),
    CheckConstraint("delivery IN ('delivered', 'bounced', 'complained')", name="delivery"),
    CheckConstraint("lane IN ('critical', 'default', 'bulk')", name="lane"),
    CheckConstraint("(template_key IS NULL) <> (subject IS NULL)", name="content"),
    CheckConstraint("cardinality(recipients) > 0", name="recipients"),
    Index("emails_tenant_id", "tenant_id", "id"),
    Index("emails_dedup_key", "tenant_id", "dedup_key", unique=True, postgresql_where=text("dedup_key IS NOT NULL")),
    Index("emails_recipient", "tenant_id", text("(recipients[1])"), "id"),
    Index(
        "emails_recipients",
        "recipients",
        postgresql_using="gin",
        postgresql_where=text("cardinality(recipients) > 1"),
    ),
    Index("emails_request", "request_id", postgresql_using="hash", postgresql_where=text("request_id IS NOT NULL")),
    Index("emails_provider_id", "provider_id", postgresql_where=text("provider_id IS NOT NULL")),
    Index("emails_followups", "message_id", postgresql_where=text("follows IS NOT NULL")),
    Index(
        "emails_bulk_id",
        "bulk_id",
        text("(recipients[1])"),
        unique=True,
        postgresql_where=text("bulk_id IS NOT NULL"),
    ),
    postgresql_with={"fillfactor": 60, "toast_tuple_target": 256},
)

attachment_files = Table(
    "attachment_files",
    Base.metadata,
    Column("tenant_id", PgUUID, primary_key=True),
    Column("digest", LargeBinary, primary_key=True, comment="SHA-256 of the data"),
    Column("data", LargeBinary, nullable=False),
    Column("used_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
)


OPEN = """ARRAY(
    SELECT r.address FROM unnest(e.recipients) WITH ORDINALITY AS r(address, place)
    WHERE NOT coalesce(jsonb_exists(e.recipient_replies, r.address), false) ORDER BY r.place)"""
"""The recipients that an email `e` still serves: all but those that the server refused beside others. SQL."""
