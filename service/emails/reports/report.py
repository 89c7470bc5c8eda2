"""What one report says of one mail and one recipient, whoever brought it. Pure."""

import hashlib
import re
from datetime import datetime
from typing import Literal

import msgspec

Action = Literal["delivered", "delayed", "bounced", "complained"]

STATUS = re.compile(r"(?<![\d.])([245])\.(\d{1,3})\.(\d{1,3})(?![\d.])")
_NOT_THE_ADDRESS = re.compile(r"5\.(2\.[234]|3\.\d+|4\.\d+|6\.\d+|7\.\d+)")


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was heard.

    The mail is named by its Message-ID, by the envelope id it was sent with, or by the address that the report came
    to (VERP); `names` holds whatever there is, the surest first. `key` is the same when it is reported again.
    `status` is an enhanced status code (RFC 3463) or empty. `at`: when it happened, where somebody says so whose clock
    is to be trusted; a server's Date header is not. `stated`: a caller of the API, or this service itself, says it in
    words; anything else may be a stranger's, and is believed as far as its tags prove it.
    """

    action: Action
    key: str
    names: tuple[str, ...] = ()
    recipient: str | None = None
    status: str = ""
    diagnostic: str = ""
    hard: bool | None = None
    source: str = ""
    at: datetime | None = None
    stated: bool = False

    @property
    def is_hard(self) -> bool:
        """Whether the address itself is to blame, and will be the next time. Where nobody says: by the status."""
        if self.action != "bounced":
            return False
        return is_hard(self.status) if self.hard is None else self.hard


def is_hard(status: str) -> bool:
    """Tell whether a final failure speaks against the address: not a full mailbox, a route, a content or a policy."""
    return not status.startswith("4.") and not _NOT_THE_ADDRESS.fullmatch(status)


def key_of(*parts: str) -> str:
    """Make the key of a report from what is the same when it comes again."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:40]
