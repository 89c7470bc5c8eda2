"""Reads reports as mail servers write them: delivery status notifications (RFC 3464) and abuse reports (RFC 5965).

The standard library's parser takes both apart: it knows message/delivery-status, and reads message/feedback-report as
a block of headers. What follows neither format goes through flufl.bounce, which Mailman keeps: it knows how many
servers word a bounce, but tells addresses only, so the mail is found by the Message-ID in whatever the bounce quotes.
"""

import email
import re
from collections.abc import Iterator, Sequence
from email.message import Message
from email.policy import Compat32
from email.utils import parseaddr

from flufl.bounce import all_failures

from service.emails.reports.report import STATUS, Action, Report, key_of
from service.emails.reports.tags import unquote

MAX_RAW = 1024 * 1024  # bytes: a report quotes headers, or at most one mail
MAX_LINES = 40_000  # more than a mail of MAX_RAW has in lines of 78 characters; each costs the guessing some µs
MAX_PARTS = 200
MAX_HEADER = 8_000  # characters of a header that are read: the parser of parameters takes their square
MAX_REPORTS = 100
MAX_TEXT = 1000  # characters of a server's words that are kept

_ACTIONS: dict[str, Action] = {
    "failed": "bounced",
    "failure": "bounced",
    "error": "bounced",
    "delayed": "delayed",
    "delivered": "delivered",
}
_MESSAGE_ID = re.compile(rb"^[ \t>]*Message-ID:\s*(<[^<>\s]{1,250}>)", re.IGNORECASE | re.MULTILINE)
_RETURN_PATH = re.compile(rb"^Return-Path:\s*(<[^<>\s]{1,250}>)", re.IGNORECASE | re.MULTILINE)


class NotAReport(ValueError):
    """A mail that reports nothing we could read."""


class _Short(Compat32):
    """Reads headers as the standard library does, and no more of each than MAX_HEADER."""

    def header_source_parse(self, sourcelines: Sequence[str]) -> tuple[str, str]:
        """The name and the value of a header."""
        name, value = super().header_source_parse(list(sourcelines))
        return name, value[:MAX_HEADER]


def read(raw: bytes) -> list[Report]:
    """Read every report in a mail, at most a hundred. Takes a thread's time, not a loop's. Raises NotAReport."""
    if len(raw) > MAX_RAW:
        raise NotAReport(f"has {len(raw):,} bytes; a report has at most {MAX_RAW:,}")
    if (lines := raw.count(b"\n")) > MAX_LINES:
        raise NotAReport(f"has {lines:,} lines; a report has at most {MAX_LINES:,}")
    try:
        message = email.message_from_bytes(raw, policy=_Short())
        parts = _parts(message)
        found = [*_delivery_reports(message, parts), *_abuse_reports(message, parts)] or list(_guessed(message, raw))
    except NotAReport:
        raise
    except Exception as error:  # whatever two parsers make of what a stranger wrote
        raise NotAReport(f"cannot be read as a mail ({type(error).__name__})") from error
    if not found:
        raise NotAReport("is neither a delivery report (RFC 3464), nor an abuse report (RFC 5965), nor a known bounce")
    return found[:MAX_REPORTS]


def _parts(message: Message) -> list[Message]:
    found: list[Message] = []
    for part in message.walk():
        found.append(part)
        if len(found) > MAX_PARTS:
            raise NotAReport(f"has more than {MAX_PARTS} parts")
    return found


def _delivery_reports(message: Message, parts: list[Message]) -> Iterator[Report]:
    for part in parts:
        if part.get_content_type() != "message/delivery-status" or not part.is_multipart():
            continue
        blocks = [block for block in part.get_payload() if isinstance(block, Message) and block.keys()]
        whole = blocks[0] if blocks and "Action" not in blocks[0] else Message()
        names = _names(message, parts, whole)
        for block in blocks:
            action = _ACTIONS.get(_text(block, "Action").split(" ")[0].lower())
            if action is not None:
                yield _delivery(message, block, action, names)


def _delivery(message: Message, block: Message, action: Action, names: tuple[str, ...]) -> Report:
    recipient = _typed(block, "Original-Recipient") or _typed(block, "Final-Recipient")
    diagnostic = _text(block, "Diagnostic-Code").partition(";")[2].strip()
    found = STATUS.search(_text(block, "Status"))
    return Report(
        action=action,
        key=_key(message, names, action, recipient),
        names=names,
        recipient=recipient or None,
        status=found[0] if found else "",
        diagnostic=diagnostic,
        source="dsn",
    )


def _abuse_reports(message: Message, parts: list[Message]) -> Iterator[Report]:
    for part in parts:
        if part.get_content_type() != "message/feedback-report":
            continue
        fields = part.get_payload(0) if part.is_multipart() else part
        kind = _text(fields, "Feedback-Type").lower()
        if not isinstance(fields, Message) or kind in ("", "not-spam", "auth-failure"):
            continue
        names = _names(message, parts, fields)
        recipient = parseaddr(_text(fields, "Original-Rcpt-To"))[1] or None
        yield Report(
            action="complained",
            key=_key(message, names, "complained", recipient or ""),
            names=names,
            recipient=recipient,
            diagnostic=f"{kind}: {_text(fields, 'User-Agent')}".strip(": "),
            source="arf",
        )


def _guessed(message: Message, raw: bytes) -> Iterator[Report]:
    """What flufl.bounce makes of a bounce that keeps to no standard; only where it quotes the mail it is about."""
    quoted = [found.decode("ascii", "replace") for found in _MESSAGE_ID.findall(raw)]
    names = (*_verp(message), *(name for name in quoted if name != _text(message, "Message-ID")))
    temporary, permanent = all_failures(message)
    verdicts: tuple[tuple[Action, frozenset[bytes]], ...] = (
        ("bounced", frozenset(permanent)),
        ("delayed", frozenset(temporary) - frozenset(permanent)),
    )
    for action, addresses in verdicts:
        for address in sorted(addresses):
            recipient = address.decode("ascii", "replace")
            key = _key(message, names, action, recipient)
            yield Report(action=action, key=key, names=names, recipient=recipient, source="flufl.bounce")


def _names(message: Message, parts: list[Message], fields: Message) -> tuple[str, ...]:
    """Everything that names the mail, the surest first."""
    envelope = unquote(_text(fields, "Original-Envelope-Id"))
    quoted = [name for part in parts for name in _quoted(part)]
    sender = _suffix(_text(fields, "Original-Mail-From"))
    return tuple(name for name in (envelope, *_verp(message), sender, *quoted) if name)


def _quoted(part: Message) -> Iterator[str]:
    """The Message-ID of a returned email, or of its returned headers, and the suffix of its return path."""
    if part.get_content_type() in ("message/rfc822", "message/global") and part.is_multipart():
        inner = part.get_payload(0)
        if isinstance(inner, Message):
            yield _text(inner, "Message-ID")
            yield _suffix(_text(inner, "Return-Path"))
    elif part.get_content_type() in ("text/rfc822-headers", "message/rfc822-headers", "message/global-headers"):
        content = part.get_payload(decode=True) if not part.is_multipart() else part.as_bytes()
        headers = content if isinstance(content, bytes) else b""
        for found in _MESSAGE_ID.findall(headers):
            yield found.decode("ascii", "replace")
        for found in _RETURN_PATH.findall(headers):
            yield _suffix(found.decode("ascii", "replace"))


def _verp(message: Message) -> Iterator[str]:
    """The tag in the address that the report came to: `bounces+TAG@…`."""
    for name in ("Delivered-To", "X-Original-To", "To"):
        if suffix := _suffix(_text(message, name)):
            yield suffix


def _suffix(address: str) -> str:
    """What stands between the last + of an address and its @; empty for none."""
    local = parseaddr(address)[1].rpartition("@")[0]
    return local.rpartition("+")[2] if "+" in local else ""


def _typed(block: Message, name: str) -> str:
    """An address after its type: `rfc822; ada@example.org`."""
    text = _text(block, name)
    address = (text.partition(";")[2] if ";" in text else text).strip().strip("<>")
    return address if "@" in address else ""


def _key(message: Message, names: tuple[str, ...], action: str, recipient: str) -> str:
    """The same report forwarded twice has other Received headers, but its own Message-ID."""
    return key_of(_text(message, "Message-ID") or _text(message, "Date"), *names, action, recipient.lower())


def _text(message: object, name: str) -> str:
    value = str(message.get(name, "")) if isinstance(message, Message) else ""
    printable = "".join(c if c.isprintable() else " " for c in value)
    return re.sub(r" +", " ", printable).strip()[:MAX_TEXT]
