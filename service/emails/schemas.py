"""The shapes of the emails API: what a caller sends and what it gets back."""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from service.core.errors import ErrorOut
from service.templates.schemas import TemplateRef

Addresses = str | list[str]


class UserRef(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A user of the audience, in place of an address: `PUT /v1/users/{id}` says which one that is."""

    user_id: str


class AttachmentIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file: `content` is base64, the name is reduced to a safe base name; `content_id` marks an image of the HTML."""

    filename: str
    content: bytes
    content_type: str = "application/octet-stream"
    content_id: str | None = None


class EmailRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/emails`: one mail, from a template or with its own subject and bodies.

    `uncertain` says what becomes of it where nobody can know whether it arrived: `hold` leaves that to a person,
    `resend` risks a second copy. `dedup_window` is in seconds from acceptance; without one a `dedup_key` holds as long
    as the mail is kept.
    """

    to: Addresses | UserRef
    cc: Addresses = []
    bcc: Addresses = []
    reply_to: Addresses = []
    sender: str | None = msgspec.field(name="from", default=None)
    subject: str | None = None
    html: str | None = None
    text: str | None = None
    template: TemplateRef | None = None
    headers: dict[str, str] = {}
    tags: list[str] = []
    metadata: dict[str, Any] = {}
    category: str | None = None
    lane: Literal["critical", "default", "bulk"] = "default"
    unsubscribe: bool | None = None
    uncertain: Literal["hold", "resend"] = "hold"
    dedup_key: str | None = None
    dedup_window: Annotated[float, msgspec.Meta(gt=0, le=31_536_000)] | None = None
    scheduled_at: datetime | None = None
    expires_at: datetime | None = None
    attachments: list[AttachmentIn] = []


class TemplateOut(msgspec.Struct, frozen=True, kw_only=True):
    """The template a mail is made from; the variables are only in `…/content`."""

    key: str
    version: int | None = None
    locale: str | None = None


class EmailPatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PATCH /v1/emails/{id}`: when the mail is to be sent; null for now."""

    scheduled_at: datetime | None


class AttachmentOut(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of an attachment's description; `size` in bytes."""

    filename: str
    content_type: str
    size: int
    content_id: str | None


class RecipientOut(msgspec.Struct, frozen=True, kw_only=True):
    """One recipient of an email: what became of the email for it.

    `status` is one of the email's statuses, `deferred` (the server asked to try later, and the email `continued_by`
    does) or `refused` (the server refused this recipient for good). `reply` is the last reply that concerns it.
    """

    address: str
    status: str
    reply: str | None = None
    continued_by: str | None = None


class EmailOut(msgspec.Struct, frozen=True, kw_only=True):
    """A mail as the API tells it; times are RFC 3339 in UTC."""

    id: str
    status: str
    task_id: str
    request_id: str | None
    attempts: int
    error: ErrorOut | None
    created_at: datetime
    updated_at: datetime
    mode: str
    lane: str
    message_id: str
    sender: str = msgspec.field(name="from")
    to: list[str]
    cc: list[str]
    bcc: list[str]
    recipients: list[RecipientOut]
    reply_to: list[str]
    subject: str | None
    template: TemplateOut | None
    category: str | None
    unsubscribe: bool
    tags: list[str]
    metadata: dict[str, Any]
    dedup_key: str | None
    dedup_until: datetime | None
    follows: str | None
    resend_of: str | None
    bulk: str | None
    attachments: list[AttachmentOut]
    scheduled_at: datetime | None
    expires_at: datetime | None
    next_attempt_at: datetime | None = None
    sent_at: datetime | None = None


class EmailPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of mails, newest first; `next_cursor` is null on the last one."""

    items: list[EmailOut]
    next_cursor: str | None


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened to a mail: `at`, what, and whatever is known about it (the SMTP reply, who, how long)."""

    at: datetime
    event: str
    detail: dict[str, Any] = {}


class EventList(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that happened to a mail, oldest first."""

    items: list[Event]
