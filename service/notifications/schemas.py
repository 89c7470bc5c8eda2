"""The shapes of the notifications API: what a caller sends and what it gets back."""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from service.core.errors import ErrorOut
from service.templates.schemas import TemplateRef

Channel = Literal["inbox", "email"]


class Recipients(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whom a notification reaches: users, followers of topics, members of an organization; each of them once."""

    users: list[str] = []
    topics: list[str] = []
    organization: str | None = None


class MailContent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What its mail says: a template, or a subject with html or text. A user's locale goes before the template's."""

    template: TemplateRef | None = None
    subject: str | None = None
    html: str | None = None
    text: str | None = None


class NotificationRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/notifications`. `dedup_window` is in seconds; without one a `dedup_key` holds as long as it is kept.

    `email` is what the mail says; without it `data.title`, `data.body` and `data.url` do, or the type.
    """

    type: str
    recipients: Recipients
    exclude: list[str] = []
    actor: str | None = None
    data: dict[str, Any] = {}
    channels: list[Channel] = msgspec.field(default_factory=lambda: ["inbox"])
    dedup_key: str | None = None
    dedup_window: Annotated[float, msgspec.Meta(gt=0, le=31_536_000)] | None = None
    category: str | None = None
    critical: bool = False
    email: MailContent | None = None


class InboxCounts(msgspec.Struct, frozen=True, kw_only=True):
    """The inbox: delivered, or kept away by a preference."""

    delivered: int = 0
    muted: int = 0


class EmailCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Mail: queued, collected for a digest, or why there is none.

    `states`: where the queued ones are now; null in a list.
    """

    queued: int = 0
    collected: int = 0
    muted: int = 0
    suppressed: int = 0
    unreachable: int = 0
    disabled: int = 0
    states: dict[str, int] | None = None


class Channels(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of each channel."""

    inbox: InboxCounts = InboxCounts()
    email: EmailCounts = EmailCounts()


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How many people: `resolved` were found (each once), `overlapping` is how often one was found again.

    `excluded` and `deduplicated` of them get nothing; of the others the channels tell.
    """

    resolved: int = 0
    overlapping: int = 0
    excluded: int = 0
    deduplicated: int = 0
    channels: Channels = Channels()


class ProgressOut(msgspec.Struct, frozen=True, kw_only=True):
    """How far a fan-out is: how many were served (somebody reached by two routes counts twice), of how many."""

    done: int
    total: int | None = None


class NotificationOut(msgspec.Struct, frozen=True, kw_only=True):
    """A notification as of now."""

    id: str
    type: str
    status: str
    task_id: str
    request_id: str | None
    attempts: int
    error: ErrorOut | None
    created_at: datetime
    updated_at: datetime
    mode: str
    category: str | None
    actor: str | None
    data: dict[str, Any]
    channels: list[str]
    critical: bool
    dedup_key: str | None
    dedup_window: float | None
    counts: Counts
    progress: ProgressOut | None
    finished_at: datetime | None


class NotificationPage(msgspec.Struct, frozen=True):
    """A page of notifications, newest first."""

    items: list[NotificationOut]
    next_cursor: str | None
