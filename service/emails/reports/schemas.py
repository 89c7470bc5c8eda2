"""The shapes of `POST /v1/inbound/bounces`."""

from datetime import datetime
from typing import Literal

import msgspec

from service.emails.reports.tags import Trust


class InboundRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One report, in words (`event` with `email_id` or `message_id`) or as the mail that it came as (`raw`)."""

    event: Literal["delivered", "delayed", "bounced", "complained"] | None = None
    email_id: str | None = None
    message_id: str | None = None
    recipient: str | None = None
    type: Literal["hard", "soft"] | None = None
    status: str | None = None
    diagnostic: str | None = None
    event_id: str | None = None
    at: datetime | None = None
    raw: str | None = None


class ReportOut(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one report: `recorded`, `repeated`, or `unknown`: no mail of yours.

    `trust`: `caller` (stated in words, by your key), `recipient` (it carries our MAC for this recipient), `email` (it
    carries our MAC for the email, which only proves that the server accepted it), or `none` (recorded only).
    """

    event: str
    outcome: Literal["recorded", "repeated", "unknown"]
    email_id: str | None
    recipient: str | None
    suppressed: bool
    trust: Trust | None = None


class InboundOut(msgspec.Struct, frozen=True, kw_only=True):
    """What became of every report that was in the request."""

    items: list[ReportOut]
