"""What an SMTP server says: reply lines, enhanced status codes (RFC 3463), queue ids. Pure."""

import re
from collections.abc import Mapping

import msgspec

from service.smtp.phases import Phase

MAX_TEXT = 1000
_ENHANCED = re.compile(r"\s*([245]\.\d{1,3}\.\d{1,3})(?=\s|$)")
_UNPRINTABLE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]+")
_QUEUE_IDS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"queued as[: ]+<?([\w.@+-]{4,128})>?",  # Postfix, SendGrid, Mailpit, Halon
        r"queued with id[: ]+<?([\w.@+-]{4,128})>?",  # Stalwart
        r"\bInternalId=(\d{4,32})",  # Exchange
        r"\bid=<?([\w.@+-]{4,128})>?",  # Exim
        r"message queued \(([\w.-]{4,128})\)",  # Haraka
        r"\bqp (\d{2,16})\b",  # qmail
        r"(?:^|\s)([\w.-]{6,128}) message accepted for delivery",  # Sendmail, OpenSMTPD
        r"^(?:2\.\d\.\d\s+)?ok\s+\d{9,11}\s+([\w.-]{4,128})(?: - gsmtp)?",  # Gmail
        r"^(?:2\.\d\.\d\s+)?ok[: ]+([0-9a-f][0-9a-f-]{15,80})$",  # Amazon SES
    )
)


class ServerReply(msgspec.Struct, frozen=True):
    """One complete reply of a server: its three digits and its lines, joined by newlines."""

    code: int
    text: str

    @property
    def enhanced(self) -> str | None:
        """The enhanced status code that opens the text, such as `5.1.1`, or None."""
        return enhanced_code(self.code, self.text)


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The server's yes to a mail: from here on it answers for the delivery.

    `refused` maps each recipient that was turned down beside others that were accepted to its own reply;
    `accepted` names the rest.
    """

    code: int
    text: str
    host: str
    phase: Phase = Phase.DOT
    enhanced: str | None = None
    queue_id: str | None = None
    accepted: tuple[str, ...] = ()
    refused: Mapping[str, ServerReply] = {}

    def detail(self) -> dict[str, str | int | None]:
        """Return the reply as JSON-ready fields, for the record of the attempt; no address in it."""
        return {
            "phase": self.phase.value,
            "code": self.code,
            "enhanced": self.enhanced,
            "text": self.text,
            "host": self.host,
            "queue_id": self.queue_id,
        }


def clean(text: str | bytes) -> str:
    """Return a server's words fit for a log and a database: no controls, no broken UTF-8, at most 1,000 characters."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    else:
        text = text.encode("utf-8", "replace").decode("utf-8")
    return _UNPRINTABLE.sub(" ", text).strip()[:MAX_TEXT]


def enhanced_code(code: int, text: str) -> str | None:
    """Return the enhanced status code of a reply if it agrees with the reply's first digit (RFC 2034)."""
    match = _ENHANCED.match(text)
    if match is None or match[1][0] != str(code)[0]:
        return None
    return match[1]


def queue_id(text: str) -> str | None:
    """Return the id under which the server queued the mail, where its 250 is of a known form."""
    first = text.split("\n", 1)[0]
    for pattern in _QUEUE_IDS:
        if match := pattern.search(first):
            return match[1].rstrip(".")
    return None
