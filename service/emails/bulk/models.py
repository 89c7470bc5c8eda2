"""What a bulk is: the words of its record, its gate, and how its id is written.

`bulks` holds one row for each; `bulk_recipients` who is to get a mail, each address once. A worker turns recipients
into mails a window at a time, so that what is paused, corrected or canceled later has not been written yet. A bulk has
the same uuid as the message that does so.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal
from uuid import UUID

import msgspec

from service.emails.schemas import TemplateRef
from workers.message import Gate

ACTOR = "emails.expand_bulk"
AT_ONCE = 1_000
"""Mails of one bulk that are under way at once: others have their turn between them."""


class BulkStatus(StrEnum):
    """Where a bulk stands, as the API tells it."""

    OPEN = "open"
    """Recipients are still being added."""
    SCHEDULED = "scheduled"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    """Nothing waits any more; the counts say what became of the mails."""
    CANCELED = "canceled"


class Common(msgspec.Struct, frozen=True, kw_only=True):
    """What all mails of a bulk have in common; kept as JSON in `bulks.request`."""

    template: TemplateRef
    sender: str | None = None
    reply_to: list[str] = []
    headers: dict[str, str] = {}
    tags: list[str] = []
    metadata: dict[str, Any] = {}
    category: str | None = None
    unsubscribe: bool | None = None
    expires_at: datetime | None = None
    uncertain: Literal["hold", "resend"] = "hold"


class Bulk(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `bulks`; `pace` mails per `period` seconds, where it is throttled.

    `last_seq` is the number of the last recipient, `next_seq` that of the last one whose mail is written.
    """

    id: UUID
    tenant_id: UUID
    mode: str
    status: str
    name: str | None
    request_id: str | None
    request: Common
    pace: int | None
    period: float | None
    scheduled_at: datetime | None
    total: int
    duplicates: int
    refused: int
    expanded: int
    last_seq: int
    next_seq: int
    created_at: datetime
    updated_at: datetime

    @property
    def gate(self) -> Gate:
        """What each mail of the bulk has to be admitted to."""
        return Gate(gate_name(self.id), slots=AT_ONCE, pace=self.pace, period=self.period)


def gate_name(id: UUID) -> str:
    """The name of a bulk's gate."""
    return f"bulk:{id}"


def bulk_id(id: UUID) -> str:
    """The API's spelling of a bulk's id: `bk_` and 32 hex digits."""
    return f"bk_{id.hex}"
