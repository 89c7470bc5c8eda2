"""Reads what stands in the path and the query of the emails routes."""

import re
from datetime import datetime
from uuid import UUID

import msgspec

from service.core.errors import BadRequest, Fault, NotFound
from service.emails.models import Status
from service.emails.serializers import Filters
from service.mail.addresses import AddressRefused, parse_address

_ID = re.compile(r"em_([0-9a-f]{32})")
_BULK = re.compile(r"bk_([0-9a-f]{32})")


def uuid_of(id: str) -> UUID:
    """Read an email's id. A malformed id gets the response of an unknown one. Raises NotFound."""
    found = _ID.fullmatch(id)
    if found is None:
        raise NotFound("There is no such email: its id is `em_` and 32 hex digits.", code="unknown-email")
    return UUID(hex=found[1])


def filters(
    *,
    status: str | None,
    to: str | None,
    tag: str | None,
    template: str | None,
    bulk: str | None,
    request_id: str | None,
    created_after: str | None,
    created_before: str | None,
) -> Filters:
    """Read the filters of a list. Raises a 400 that names every one that cannot be read."""
    faults: list[Fault] = []
    found = Filters(
        status=_status(status, faults),
        to=_address(to, faults),
        tag=_text("tag", tag, faults),
        template=_text("template", template, faults),
        bulk=_bulk(bulk, faults),
        request_id=_text("request_id", request_id, faults),
        created_after=_time("created_after", created_after, faults),
        created_before=_time("created_before", created_before, faults),
    )
    if faults:
        raise BadRequest("The query string is wrong; see `errors`.", code="bad-query", errors=faults)
    return found


def _status(value: str | None, faults: list[Fault]) -> Status | None:
    if value is None:
        return None
    try:
        return Status(value)
    except ValueError:
        faults.append(Fault("/status", f"must be one of {', '.join(Status)}."))
        return None


def _address(value: str | None, faults: list[Fault]) -> str | None:
    if value is None:
        return None
    try:
        return parse_address(value, private=True).addr_spec
    except AddressRefused as error:
        faults += [Fault("/to", f"{fault.message}.") for fault in error.faults]
        return None


def _bulk(value: str | None, faults: list[Fault]) -> UUID | None:
    if value is None:
        return None
    found = _BULK.fullmatch(value)
    if found is None:
        faults.append(Fault("/bulk", "must be the id of a bulk: `bk_` and 32 hex digits."))
    return None if found is None else UUID(hex=found[1])


def _text(name: str, value: str | None, faults: list[Fault]) -> str | None:
    if value is not None and (not value.isprintable() or not 1 <= len(value) <= 200):
        faults.append(Fault(f"/{name}", "must be 1 to 200 printable characters."))
        return None
    return value


def _time(name: str, value: str | None, faults: list[Fault]) -> datetime | None:
    if value is None:
        return None
    try:
        found = msgspec.convert(value.replace(" ", "+"), datetime)
    except msgspec.ValidationError:
        found = None
    if found is None or found.tzinfo is None:
        faults.append(Fault(f"/{name}", "must be an RFC 3339 time with its offset, such as 2026-01-31T12:00:00Z."))
        return None
    return found
