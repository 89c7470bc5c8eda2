"""Reads what stands in the paths and bodies of the webhooks routes."""

import re
from collections.abc import Sequence
from uuid import UUID

from service.core.errors import Fault, NotFound
from service.egress import AddressRefused, Guard
from service.webhooks.signing import read_secret
from service.webhooks.types import EVERYTHING, TYPES

ID = re.compile(r"([a-z]{2})_([0-9a-f]{32})")
LONGEST_DESCRIPTION = 500  # characters


def unknown_endpoint() -> NotFound:
    """Make the 404 of an endpoint that is not there, or is another tenant's."""
    return NotFound("There is no such endpoint: its id is `wh_` and 32 hex digits.", code="unknown-webhook")


def unknown_delivery() -> NotFound:
    """Make the 404 of a delivery that is not there, or not to this endpoint."""
    return NotFound("There is no such delivery: its id is `dl_` and 32 hex digits.", code="unknown-delivery")


def uuid_of(id: str, kind: str, unknown: NotFound) -> UUID:
    """Read an id whose prefix is `kind`. Raises `unknown`."""
    found = ID.fullmatch(id)
    if found is None or found[1] != kind:
        raise unknown
    return UUID(hex=found[2])


def endpoint(id: str) -> UUID:
    """Read an endpoint's id. Raises NotFound."""
    return uuid_of(id, "wh", unknown_endpoint())


def delivery(id: str) -> UUID:
    """Read a delivery's id. Raises NotFound."""
    return uuid_of(id, "dl", unknown_delivery())


def type_faults(given: Sequence[str] | None) -> list[Fault]:
    """Name what is wrong with a list of event types; an empty one is good: only jobs that name the endpoint call it."""
    found = [
        Fault(f"/events/{place}", f"There is no such type; there are `*`, {', '.join(TYPES)}.")
        for place, type in enumerate(given or ())
        if type not in TYPES and type != EVERYTHING
    ]
    return found or ([Fault("/events", "A type is there twice.")] if len(set(given or ())) < len(given or ()) else [])


def text_faults(description: str | None) -> list[Fault]:
    """Name what is wrong with a description."""
    if description is None or (len(description) <= LONGEST_DESCRIPTION and description.isprintable()):
        return []
    return [Fault("/description", f"At most {LONGEST_DESCRIPTION} printable characters are expected.")]


def secret_faults(secret: str | None) -> list[Fault]:
    """Name what is wrong with a secret that the caller brings."""
    try:
        if secret is not None:
            read_secret(secret)
    except ValueError as error:
        return [Fault("/secret", str(error))]
    return []


async def check_url(guard: Guard, url: str | None) -> tuple[str | None, list[Fault]]:
    """Bring a URL to its normal form, and say what is wrong with it; its name is looked up once.

    A name that cannot be resolved now is taken: it may be about to be set up, and each call checks again.
    """
    if url is None:
        return None, []
    try:
        target = guard.target(url)
        await guard.resolve(target.host, target.port)
    except AddressRefused as error:
        return None, [Fault("/url", str(error))]
    except (OSError, UnicodeError):
        return guard.target(url).url, []
    return target.url, []
