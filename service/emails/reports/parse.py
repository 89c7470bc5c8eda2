"""Reads what a caller says of a mail, as JSON or as the report itself, and names every fault."""

from collections.abc import Iterator
from datetime import UTC

from service.core.errors import Fault, Invalid
from service.core.validation import pointed
from service.emails.reports.report import STATUS, Report, key_of
from service.emails.reports.rfc3464 import NotAReport, read
from service.emails.reports.schemas import InboundRequest
from service.mail.addresses import AddressRefused, parse_address

MAX_WORDS = 1000  # characters of a diagnostic
MAX_NAME = 255  # characters of an id
WORDS = ("event", "email_id", "message_id", "recipient", "type", "status", "diagnostic", "event_id", "at")


def reports_of(request: InboundRequest) -> list[Report]:
    """Read the reports in a request: one in words, or as many as the mail in `raw` holds. Raises Invalid.

    A raw report may take some milliseconds: call this in a thread.
    """
    if request.raw is None:
        return [_report(request)]
    given = [name for name in WORDS if getattr(request, name) is not None]
    if given:
        raise Invalid([Fault(f"/{name}", "the mail in `raw` says this itself; leave one away.") for name in given])
    return raw_reports(request.raw.encode("utf-8", "surrogateescape"), "/raw")


def raw_reports(raw: bytes, pointer: str = "") -> list[Report]:
    """Read a report as it came. Raises Invalid."""
    try:
        return read(raw)
    except NotAReport as error:
        raise Invalid([Fault(pointer, f"{error}.")]) from error


def _report(request: InboundRequest) -> Report:
    faults = list(_faults(request))
    recipient = _recipient(request, faults)
    if faults or request.event is None:
        raise Invalid(faults)
    names = tuple(filter(None, (request.email_id, request.message_id)))
    at = request.at.astimezone(UTC) if request.at is not None else None
    what = ("id", request.event_id) if request.event_id else (*names, request.event, recipient or "", str(at or ""))
    return Report(
        action=request.event,
        key=key_of(*what),
        names=names,
        recipient=recipient,
        status=request.status or "",
        diagnostic=request.diagnostic or "",
        hard=None if request.type is None else request.type == "hard",
        source="api",
        stated=True,
        at=at,
    )


def _faults(request: InboundRequest) -> Iterator[Fault]:
    if request.event is None:
        yield Fault("/event", "is missing; say what happened, or give the report itself as `raw`.")
    if request.email_id is None and request.message_id is None:
        yield Fault("/email_id", "is missing, and so is message_id; say which mail this is about.")
    for name in ("email_id", "message_id", "event_id"):
        value = getattr(request, name)
        if value is not None and (not value.isprintable() or not 1 <= len(value) <= MAX_NAME):
            yield Fault(f"/{name}", f"must be 1 to {MAX_NAME} printable characters.")
    if request.status is not None and not STATUS.fullmatch(request.status):
        yield Fault("/status", "must be an enhanced status code such as 5.1.1 (RFC 3463).")
    if request.diagnostic is not None and (len(request.diagnostic) > MAX_WORDS or "\0" in request.diagnostic):
        yield Fault("/diagnostic", f"must be at most {MAX_WORDS:,} characters.")
    if request.type is not None and request.event not in (None, "bounced"):
        yield Fault("/type", "only a bounce is hard or soft; leave this field away.")
    if request.at is not None and request.at.tzinfo is None:
        yield Fault("/at", "must be an RFC 3339 time with its offset, such as 2026-01-31T12:00:00Z.")


def _recipient(request: InboundRequest, faults: list[Fault]) -> str | None:
    if request.recipient is None:
        return None
    try:
        return parse_address(request.recipient, private=True).addr_spec
    except AddressRefused as error:
        faults += pointed("/recipient", error.faults)
        return None
