"""The shapes of `/v1/suppressions`."""

from datetime import datetime
from typing import Literal

import msgspec

REASONS = Literal["hard_bounce", "complaint", "unsubscribe", "manual"]


class SuppressionRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One address that is to get no mail: none at all, or none of one category."""

    address: str
    category: str | None = None
    reason: REASONS = "manual"
    note: str | None = None


class SuppressionBatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Up to 1,000 of them."""

    items: list[SuppressionRequest]


class SuppressionOut(msgspec.Struct, frozen=True, kw_only=True):
    """A suppression; `category` null means every mail, `email_id` names the mail that led to it."""

    id: str
    address: str
    category: str | None
    reason: str
    note: str | None
    email_id: str | None
    created_at: datetime


class SuppressionPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of suppressions, newest first; `next_cursor` is null on the last one."""

    items: list[SuppressionOut]
    next_cursor: str | None


class SuppressionBatchOut(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch came to: every suppression in its order, and how many of them are new."""

    items: list[SuppressionOut]
    created: int
