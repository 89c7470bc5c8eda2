"""Reads what a tenant says of a mail server, and names every fault."""

import re
from collections.abc import Iterator
from uuid import UUID

from service.core.errors import Fault, Invalid, NotFound
from service.egress.resolver import Guard
from service.egress.urls import AddressRefused as HostRefused
from service.egress.urls import check_host
from service.mail.addresses import AddressRefused, parse_address
from service.transports.pools import PORTS
from service.transports.schemas import TransportRequest

MAX_POOL = 20
MAX_DOMAINS = 100
MAX_TEXT = 500  # characters of a user name, and of a password
_ID = re.compile(r"tr_([0-9a-f]{32})")


def uuid_of(id: str) -> UUID:
    """Read a transport's id. Raises NotFound."""
    found = _ID.fullmatch(id)
    if found is None:
        raise NotFound("There is no such transport.", code="unknown-transport")
    return UUID(hex=found[1])


async def checked(request: TransportRequest, guard: Guard) -> list[str]:
    """Check a mail server, its address included; returns its domains as mail has them. Raises Invalid."""
    faults = list(_faults(request, guard))
    domains = _domains(request, faults)
    if not any(fault.pointer == "/host" for fault in faults):
        try:
            await guard.resolve(request.host, request.port)
        except HostRefused as error:
            faults.append(Fault("/host", str(error)))
        except OSError as error:
            faults.append(Fault("/host", f"cannot be resolved: {error.strerror or 'no answer in time'}."))
    if faults:
        raise Invalid(faults)
    return domains


def _faults(request: TransportRequest, guard: Guard) -> Iterator[Fault]:
    if not request.name.isprintable() or not 1 <= len(request.name) <= 100:
        yield Fault("/name", "must be 1 to 100 printable characters.")
    try:
        check_host(request.host, private=guard.private)
    except HostRefused as error:
        yield Fault("/host", str(error))
    if not 1 <= request.port <= 65535 or not (guard.private or request.port in PORTS):
        yield Fault("/port", f"must be one of {', '.join(map(str, PORTS))}.")
    if not 1 <= request.pool_size <= MAX_POOL:
        yield Fault("/pool_size", f"must be 1 to {MAX_POOL}.")
    if (request.username is None) != (request.password is None):
        yield Fault("/password", "a user name and a password go together; give both or neither.")
    for name in ("username", "password"):
        value = getattr(request, name)
        if value is not None and (not 1 <= len(value) <= MAX_TEXT or any(ord(c) < 32 for c in value)):
            yield Fault(f"/{name}", f"must be 1 to {MAX_TEXT} characters, without control characters.")
    if request.password is not None and request.tls == "none" and not guard.private:
        yield Fault("/tls", "a password is never sent in clear; use starttls or tls.")


def _domains(request: TransportRequest, faults: list[Fault]) -> list[str]:
    if len(request.domains) > MAX_DOMAINS:
        faults.append(Fault("/domains", f"has {len(request.domains)} items; at most {MAX_DOMAINS} are taken."))
    found = []
    for index, domain in enumerate(request.domains[:MAX_DOMAINS]):
        try:
            found.append(parse_address(f"x@{domain}", private=True).addr_spec.partition("@")[2].lower())
        except AddressRefused as error:
            faults += [Fault(f"/domains/{index}", f"{fault.message}.") for fault in error.faults]
    return list(dict.fromkeys(found))
