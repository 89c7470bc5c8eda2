"""Reads what stands in the paths and bodies of the jobs routes."""

import re
from uuid import UUID

from service.core.errors import Fault, Invalid, NotFound

JOB = re.compile(r"jb_([0-9a-f]{32})")
TASK = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
ORGANIZATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+|~=-]{0,127}")  # that of users and topics


def unknown_job() -> NotFound:
    """Make the 404 of a job that is not there, or is another tenant's."""
    return NotFound("There is no such job: its id is `jb_` and 32 hex digits.", code="unknown-job")


def uuid_of(id: str) -> UUID:
    """Read a job's id, or the same id as Celery spells it. Raises NotFound."""
    found = JOB.fullmatch(id)
    if found is None and TASK.fullmatch(id) is None:
        raise unknown_job()
    return UUID(hex=found[1]) if found else UUID(id)


def organization_id(given: str) -> str:
    """Read an organization's id: the caller's own word for it. Raises Invalid."""
    if ORGANIZATION.fullmatch(given) is None:
        raise Invalid(
            [
                Fault(
                    "/organization_id",
                    "1 to 128 of A-Z a-z 0-9 . _ : @ + | ~ = - are expected, a letter or digit first.",
                )
            ]
        )
    return given
