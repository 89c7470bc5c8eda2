"""How ids of records are written: a prefix for the kind and 32 hex digits of the uuid."""

import re
from uuid import UUID

from service.core.errors import NotFound

_NOTIFICATION_ID = re.compile(r"no_([0-9a-f]{32})")


def email_id(id: UUID) -> str:
    """The API's spelling of a mail's id: `em_` and 32 hex digits."""
    return f"em_{id.hex}"


def bulk_id(id: UUID) -> str:
    """The API's spelling of a bulk's id: `bk_` and 32 hex digits."""
    return f"bk_{id.hex}"


def notification_id(id: UUID) -> str:
    """The API's spelling of a notification's id: `no_` and 32 hex digits."""
    return f"no_{id.hex}"


def job_id(id: UUID) -> str:
    """The API's spelling of a job's id: `jb_` and 32 hex digits."""
    return f"jb_{id.hex}"


def notification_uuid(id: str) -> UUID:
    """Read a notification's id. Raises NotFound."""
    found = _NOTIFICATION_ID.fullmatch(id)
    if found is None:
        raise unknown_notification()
    return UUID(hex=found[1])


def unknown_notification() -> NotFound:
    """Make the 404 of a notification that is not there, or is another tenant's."""
    return NotFound("There is no such notification: its id is `no_` and 32 hex digits.", code="unknown-notification")
