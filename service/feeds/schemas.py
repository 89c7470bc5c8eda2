"""The shapes of the feed's routes."""

from datetime import datetime
from typing import Annotated

import msgspec

from service.feeds.repository import FeedCounts, Item


class FeedPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a feed, newest first. `last_seq` is where to begin a stream that misses nothing after this page."""

    items: list[Item]
    next_cursor: str | None
    counts: FeedCounts
    last_seq: int


class MarkRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which items: by `ids`, or all up to the number `up_to`. `undo` takes the mark back."""

    ids: list[str] | None = None
    up_to: Annotated[int, msgspec.Meta(ge=0)] | None = None
    undo: bool = False


class Marked(msgspec.Struct, frozen=True, kw_only=True):
    """How many items changed, and the counts as they are now."""

    changed: int
    counts: FeedCounts


class TokenRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For how many seconds a stream may be opened with the token."""

    ttl: Annotated[int, msgspec.Meta(ge=10, le=3600)] = 300


class TokenOut(msgspec.Struct, frozen=True, kw_only=True):
    """A token for `…/stream?token=` and `…/ws?token=`, and until when it is good."""

    token: str
    expires_at: datetime
