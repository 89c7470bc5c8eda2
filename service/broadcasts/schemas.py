"""The shapes of the bulk API."""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from service.core.errors import ErrorOut, Fault
from service.emails.batch.schemas import Mode
from service.emails.schemas import TemplateOut
from service.templates.schemas import TemplateRef

MAX_INLINE = 10_000
MAX_RECIPIENTS = 1_000_000


class RecipientIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One reader: what the template is filled with for this one, on top of what all have, and in which language."""

    to: str
    variables: dict[str, Any] = {}
    locale: str | None = None


class BulkRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/emails/bulk`: a template, and `recipients`, or a `topic` whose followers get it, or neither.

    With neither the bulk is `open`: rows come by `PUT /v1/bulk/{id}/recipients`, then `POST …/start`. `throttle`: so
    many mails in a period, such as `10/s`, `600/m`, `100/15m`. `mode` is about recipients that cannot be served.
    `uncertain` is what it is of `POST /v1/emails`, for each of the mails.
    """

    template: TemplateRef
    recipients: Annotated[list[RecipientIn], msgspec.Meta(min_length=1, max_length=MAX_INLINE)] | None = None
    topic: str | None = None
    mode: Mode = "atomic"
    name: str | None = None
    throttle: str | None = None
    sender: str | None = msgspec.field(name="from", default=None)
    reply_to: list[str] = []
    headers: dict[str, str] = {}
    tags: list[str] = []
    metadata: dict[str, Any] = {}
    category: str | None = None
    unsubscribe: bool | None = None
    scheduled_at: datetime | None = None
    expires_at: datetime | None = None
    uncertain: Literal["hold", "resend"] = "hold"


class BulkPatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PATCH /v1/bulk/{id}`: what is to be different for the mails that were not sent yet.

    `version` and `variables` of the template all have in common; `throttle`, where `none` takes it off.
    """

    version: int | None = None
    variables: dict[str, Any] | None = None
    throttle: str | None = None


class BulkOut(msgspec.Struct, frozen=True, kw_only=True):
    """A bulk as of now. `counts`: mails by status, and `pending` recipients whose mail is not written yet."""

    id: str
    status: str
    task_id: str
    request_id: str | None
    attempts: int
    error: ErrorOut | None
    created_at: datetime
    updated_at: datetime
    mode: str
    name: str | None
    template: TemplateOut
    throttle: str | None
    uncertain: str
    scheduled_at: datetime | None
    total: int
    duplicates: int
    refused: int
    counts: dict[str, int]
    errors: list[Fault] = []
    """Of the request that this answers: recipients that were refused, the first hundred."""


class BulkPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of bulks, newest first; `next_cursor` is null on the last one."""

    items: list[BulkOut]
    next_cursor: str | None


class RowsOut(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the rows of a file. `total`: the recipients of the bulk by now; `errors`: the first hundred."""

    added: int
    duplicates: int
    refused: int
    total: int
    errors: list[Fault]
