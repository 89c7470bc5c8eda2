"""Reads what callers say of suppressions: addresses, categories, ids. Every fault is named."""

import re
from collections.abc import Iterator
from uuid import UUID

from service.core.errors import BadRequest, Fault, Invalid, NotFound
from service.core.validation import pointed
from service.mail.address_text import canonical
from service.mail.addresses import AddressRefused, parse_address
from service.suppressions.models import Reason
from service.suppressions.repository import Entry
from service.suppressions.schemas import SuppressionRequest

MAX_BATCH = 1000
MAX_NOTE = 500  # characters
_ID = re.compile(r"su_([0-9a-f]{32})")
_CATEGORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")


def uuid_of(id: str) -> UUID:
    """Read a suppression's id. Raises NotFound: what is no id is a suppression that there is not."""
    found = _ID.fullmatch(id)
    if found is None:
        raise NotFound("There is no such suppression: its id is `su_` and 32 hex digits.", code="unknown-suppression")
    return UUID(hex=found[1])


def entry_of(request: SuppressionRequest) -> Entry:
    """Read one suppression. Raises Invalid."""
    return entries_of([request], "")[0]


def batch_of(requests: list[SuppressionRequest]) -> list[Entry]:
    """Read a batch; each distinct address and category once. Raises Invalid with the faults of all."""
    if not 1 <= len(requests) <= MAX_BATCH:
        raise Invalid([Fault("/items", f"has {len(requests):,} items; give 1 to {MAX_BATCH:,}.")])
    first: dict[tuple[str, str | None], Entry] = {}
    for entry in entries_of(requests, "/items"):
        first.setdefault((entry.address, entry.category), entry)
    return list(first.values())


def entries_of(requests: list[SuppressionRequest], prefix: str) -> list[Entry]:
    """Read suppressions whose faults are told below `prefix`. Raises Invalid."""
    faults: list[Fault] = []
    entries = []
    for index, request in enumerate(requests):
        pointer = f"{prefix}/{index}" if prefix else ""
        faults += _faults(request, pointer)
        address = _address(request.address, f"{pointer}/address", faults)
        reason = Reason(request.reason)
        entries.append(Entry(address=address, category=request.category, reason=reason, note=request.note))
    if faults:
        raise Invalid(faults[:100])
    return entries


def filters_of(*, address: str | None, category: str | None, reason: str | None) -> dict[str, str]:
    """Read the filters of a list. Raises BadRequest with every fault."""
    faults: list[Fault] = []
    found = {}
    if address is not None:
        found["address"] = _address(address, "/address", faults)
    if category is not None:
        found["category"] = category
        if not _CATEGORY.fullmatch(category):
            faults.append(Fault("/category", "must be 1 to 64 of A-Z a-z 0-9 . _ : -"))
    if reason is not None:
        found["reason"] = reason
        if reason not in set(Reason):
            faults.append(Fault("/reason", f"must be one of {', '.join(Reason)}."))
    if faults:
        raise BadRequest("The query string is wrong; see `errors`.", code="bad-query", errors=faults)
    return found


def _faults(request: SuppressionRequest, pointer: str) -> Iterator[Fault]:
    if request.category is not None and not _CATEGORY.fullmatch(request.category):
        yield Fault(f"{pointer}/category", "must be 1 to 64 of A-Z a-z 0-9 . _ : -, or null for every mail.")
    if request.note is not None and (len(request.note) > MAX_NOTE or "\0" in request.note):
        yield Fault(f"{pointer}/note", f"must be at most {MAX_NOTE} characters.")


def _address(text: str, pointer: str, faults: list[Fault]) -> str:
    try:
        return canonical(parse_address(text, private=True).addr_spec)
    except AddressRefused as error:
        faults += pointed(pointer, error.faults)
        return ""
