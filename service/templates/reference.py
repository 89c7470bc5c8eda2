"""Which template a request names, and whether its variables fill it."""

from collections.abc import Iterator
from uuid import UUID

from service.core.errors import Fault, Invalid
from service.core.validation import json_faults, pointed
from service.templates.render import UnknownTemplate, VariablesRefused, check
from service.templates.schemas import TemplateRef
from service.templates.tenant.lookup import Library, Pinned, UnknownVersion
from service.templates.variables import variable_faults


async def pin(
    library: Library, tenant_id: UUID | None, wanted: TemplateRef, pointer: str = "/template"
) -> Pinned | None:
    """Return the version that is meant; None for a built-in template, and for an email of the service itself.

    Raises Invalid for a version that does not exist.
    """
    if tenant_id is None:
        return None
    try:
        return await library.pin(tenant_id, wanted.key, wanted.version, wanted.locale)
    except UnknownVersion as error:
        raise Invalid([Fault(f"{pointer}/version", f"{error}.")]) from error


def template_faults(wanted: TemplateRef, pointer: str = "", pinned: Pinned | None = None) -> Iterator[Fault]:
    """Every reason for which a template cannot be filled: it is unknown, or these variables are missing."""
    yield from json_faults(wanted.variables, f"{pointer}/variables")
    if pinned is not None:
        yield from pointed(pointer, variable_faults(pinned.needs, wanted.variables))
        return
    if wanted.version:
        yield Fault(f"{pointer}/version", "a built-in template has one version; leave this field away.")
    try:
        check(wanted.key, wanted.variables, wanted.locale)
    except UnknownTemplate as error:
        yield Fault(f"{pointer}/key", f"{error}.")
    except VariablesRefused as error:
        yield from pointed(pointer, error.faults)
