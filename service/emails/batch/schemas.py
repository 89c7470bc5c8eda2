"""The shapes of `POST /v1/emails/batch`."""

from typing import Annotated, Literal

import msgspec

from service.core.errors import Fault
from service.emails.schemas import EmailRequest

MAX_MAILS = 1_000

Mode = Literal["atomic", "partial"]


class BatchRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Up to 1,000 mails, each as `POST /v1/emails` takes it. `atomic`: all or none; `partial`: all that can be."""

    emails: Annotated[list[EmailRequest], msgspec.Meta(min_length=1, max_length=MAX_MAILS)]
    mode: Mode = "atomic"


class ItemError(msgspec.Struct, frozen=True, kw_only=True):
    """Why one mail of a batch is not stored: `errors` point into the request's body."""

    code: str
    detail: str
    errors: list[Fault]


class BatchItem(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the mail at `index`: an id, or an error. `deduplicated`: the id is an earlier mail's."""

    index: int
    id: str | None = None
    task_id: str | None = None
    status: str | None = None
    deduplicated: bool = False
    error: ItemError | None = None


class BatchOut(msgspec.Struct, frozen=True, kw_only=True):
    """The mails of a batch in the order of the request."""

    mode: str
    accepted: int
    deduplicated: int
    refused: int
    items: list[BatchItem]
