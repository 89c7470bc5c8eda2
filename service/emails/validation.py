"""What a request for a mail must keep to: every fault, with its JSON pointer. Pure.

The rules for addresses, subjects, headers and files are those of the modules that write them; here they are asked
together, so that one answer names everything.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from callboard_workers.message import END
from service.core.errors import Fault
from service.core.validation import json_faults, pointed
from service.emails.schemas import EmailRequest
from service.mail.attachments import Attachment, attachment_faults
from service.mail.characters import describe, unsendable
from service.mail.headers import header_faults, subject_faults

MAX_RECIPIENTS = 50
MAX_BODY = 2 * 1024 * 1024  # bytes of html, and of text
MAX_TAGS = 20
MAX_FILES = 20
MAX_FILE_BYTES = 10 * 1024 * 1024  # of all attachments of a mail together, before base64
FARTHEST = timedelta(hours=14)  # from UTC, of any clock on Earth
SKEW = timedelta(minutes=1)  # how far behind ours a caller's clock may be when it says "now"

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
_DEDUP_KEY = re.compile(r"[\x21-\x7e]{1,200}")


def request_faults(request: EmailRequest, files: list[Attachment], now: datetime) -> Iterator[Fault]:
    """Everything wrong with a request but its addresses and its template."""
    yield from _recipient_faults(request)
    yield from _content_faults(request)
    if files:
        yield from pointed("", attachment_faults(files, request.html))
        yield from _file_faults(files)
    yield from _label_faults(request)
    if request.scheduled_at is not None or request.expires_at is not None:
        yield from time_faults(request.scheduled_at, request.expires_at, now)


def _recipient_faults(request: EmailRequest) -> Iterator[Fault]:
    if request.to == []:
        yield Fault("/to", "is empty; name at least one recipient.")
    total = _count(request.to) + _count(request.cc) + _count(request.bcc)
    if total > MAX_RECIPIENTS:
        yield Fault("/to", f"{total} recipients in to, cc and bcc; one mail takes at most {MAX_RECIPIENTS}.")


def _count(given: Any) -> int:
    return len(given) if isinstance(given, list) else 1


def _content_faults(request: EmailRequest) -> Iterator[Fault]:
    if request.template is not None:
        for name in ("subject", "html", "text"):
            if getattr(request, name) is not None:
                yield Fault(f"/{name}", "a template brings its own; leave this field or `template` away.")
    else:
        if request.subject is None:
            yield Fault("/subject", "is missing; give a subject with html or text, or a template.")
        if request.html is None and request.text is None:
            yield Fault("/html", "is missing, and so is text; give one of them, or a template.")
    if request.subject is not None:
        yield from pointed("", subject_faults(request.subject))
    if request.html is not None:
        yield from _body_faults("html", request.html)
    if request.text is not None:
        yield from _body_faults("text", request.text)
    if request.headers:
        yield from pointed("/headers", header_faults(request.headers))


def _body_faults(name: str, body: str) -> Iterator[Fault]:
    if found := unsendable(body):
        yield Fault(f"/{name}", f"holds {describe(found)}; remove it.")
    elif len(body) > MAX_BODY or len(body.encode()) > MAX_BODY:
        yield Fault(f"/{name}", f"is over {MAX_BODY:,} bytes.")


def _file_faults(files: list[Attachment]) -> Iterator[Fault]:
    if len(files) > MAX_FILES:
        yield Fault("/attachments", f"{len(files)} files; a mail takes at most {MAX_FILES}.")
    total = sum(len(file.content) for file in files)
    if total > MAX_FILE_BYTES:
        yield Fault("/attachments", f"{total:,} bytes together; a mail takes at most {MAX_FILE_BYTES:,}.")


def _label_faults(request: EmailRequest) -> Iterator[Fault]:
    if len(request.tags) > MAX_TAGS:
        yield Fault("/tags", f"{len(request.tags)} tags; a mail takes at most {MAX_TAGS}.")
    for index, tag in enumerate(request.tags[:MAX_TAGS]):
        yield from _word_faults(tag, f"/tags/{index}")
    if request.category is not None:
        yield from _word_faults(request.category, "/category")
    if request.dedup_key is not None and not _DEDUP_KEY.fullmatch(request.dedup_key):
        yield Fault("/dedup_key", "must be 1 to 200 printable ASCII characters without spaces.")
    if request.dedup_window is not None and request.dedup_key is None:
        yield Fault("/dedup_window", "a window needs a dedup_key.")
    if request.metadata:
        yield from json_faults(request.metadata, "/metadata")


def _word_faults(text: str, pointer: str) -> Iterator[Fault]:
    if not _WORD.fullmatch(text):
        yield Fault(pointer, "must be 1 to 64 characters of A-Z a-z 0-9 . _ : -, a letter or digit first.")


def time_faults(at: datetime | None, until: datetime | None, now: datetime) -> Iterator[Fault]:
    """What is wrong with when a mail is to be sent, and when it expires."""
    start = now
    if at is not None:
        faults = list(_between(at, "/scheduled_at", now - SKEW, END))
        start = now if faults else max(now, at.astimezone(UTC))
        yield from faults
    if until is not None:
        yield from _between(until, "/expires_at", start, END)


def _between(at: datetime, pointer: str, low: datetime, high: datetime) -> Iterator[Fault]:
    if at.tzinfo is None:
        yield Fault(pointer, "has no offset from UTC; write it as 2026-01-31T12:00:00Z.")
    elif abs(at.utcoffset() or timedelta()) > FARTHEST:
        yield Fault(pointer, "has an offset from UTC that no clock on Earth has; the farthest is 14:00.")
    elif not low <= at < high:
        yield Fault(pointer, f"must be from {low:%Y-%m-%dT%H:%M:%SZ} on, and before {high:%Y-%m-%dT%H:%M:%SZ}.")
