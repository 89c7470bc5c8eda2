"""Headers a caller may set: an allowlist of names, and rules for what a value may hold."""

from __future__ import annotations

import re
from collections.abc import Mapping

from service.mail.characters import BIDI, problem
from service.mail.faults import Fault, Refused

MAX_SUBJECT = 998  # characters
MAX_VALUE = 998  # characters
MAX_HEADERS = 50

_EXTENSION = re.compile(r"X-[A-Za-z0-9-]{1,60}", re.IGNORECASE)
_LIST = re.compile(r"List-(Archive|Help|Id|Owner|Post|Subscribe|Unsubscribe|Unsubscribe-Post)", re.IGNORECASE)
_MESSAGE_IDS = re.compile(r"<[^<>@\s]+@[^<>@\s]+>(?: <[^<>@\s]+@[^<>@\s]+>)*")
_THREAD = {"in-reply-to", "references"}
# Mail providers read recipients and routing from these: they would be a Bcc by another name.
_STEERS_A_PROVIDER = re.compile(
    r"X-(SMTPAPI|MC-BccAddress|MC-Subaccount|Mailgun-(Recipient-Variables|Sending-Ip.*)|Envelope-.*|Original-To"
    r"|Callboard-.*)",
    re.IGNORECASE,
)
_OURS = {
    "from": "from", "sender": "from", "to": "to", "cc": "cc", "bcc": "bcc", "reply-to": "reply_to",
    "subject": "subject", "return-path": "from",
}  # fmt: skip


class HeadersRefused(Refused):
    """Some custom headers, or the subject, were refused; each fault's `where` is the header's name."""


def header_faults(headers: Mapping[str, str]) -> list[Fault]:
    """Return every fault of a mapping of custom headers, by header name."""
    if len(headers) > MAX_HEADERS:
        return [Fault("", "too_many", f"has {len(headers)} headers; at most {MAX_HEADERS} are sent")]
    seen: set[str] = set()
    faults = []
    for name, value in headers.items():
        found = _name_fault(name) or _value_fault(name, value)
        if not found and name.lower() in seen:
            found = "duplicate", "is given twice in different case; give it once"
        seen.add(name.lower())
        if found:
            faults.append(Fault(_shown(name), *found))
    return faults


def check_headers(headers: Mapping[str, str]) -> None:
    """Raise HeadersRefused naming every custom header that may not be sent."""
    if faults := header_faults(headers):
        raise HeadersRefused(faults)


def subject_faults(subject: str) -> list[Fault]:
    """Return what makes a subject unsendable: controls, encoded-words, more than 998 characters, nothing at all."""
    if found := problem(subject):
        return [Fault("subject", *found)]
    if BIDI.search(subject):
        return [Fault("subject", "bidi_control", "reorders its own characters; remove the bidirectional controls")]
    if len(subject) > MAX_SUBJECT:
        return [Fault("subject", "too_long", f"has {len(subject)} characters; at most {MAX_SUBJECT} are sent")]
    if not subject.strip():
        return [Fault("subject", "empty", "is empty; say in one line what the mail is about")]
    return []


def _name_fault(name: str) -> tuple[str, str] | None:
    lower = name.lower()
    if lower in _OURS:
        return "reserved", f"cannot be set as a header; use the field `{_OURS[lower]}`"
    if _STEERS_A_PROVIDER.fullmatch(name):
        return "reserved", "tells a mail provider whom to send to or how; it cannot be set"
    if not (_EXTENSION.fullmatch(name) or _LIST.fullmatch(name) or lower in _THREAD):
        return "not_allowed", (
            "is not a header that can be set; allowed are X-… (letters, digits, hyphens, at most 62 characters), "
            "List-…, In-Reply-To and References"
        )
    return None


def _value_fault(name: str, value: str) -> tuple[str, str] | None:
    if found := problem(value):
        return found
    if not value.strip(" ") or value != value.strip(" "):
        return "blank", "has a value that is empty, or begins or ends with a space"
    if len(name) + 2 + len(value.encode()) > MAX_VALUE:
        return "too_long", f"has a value too long for a header line of {MAX_VALUE} octets"
    if name.lower() in _THREAD and not _MESSAGE_IDS.fullmatch(value):
        return "message_id", "must hold message ids, each as <id@host>, with single spaces between"
    return None


def _shown(name: str) -> str:
    return ascii(name[:80])[1:-1]
