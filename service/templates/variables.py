"""Variables: what a caller gave a template, held against what the template needs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Protocol
from urllib.parse import urlsplit

from service.mail.addresses import AddressRefused, parse_address
from service.mail.characters import CONTROL, CONTROL_IN_TEXT, describe
from service.mail.faults import Fault
from service.templates.source import UNSUBSCRIBE, Declared

MAX_VARIABLES = 200
MAX_URL = 2048  # characters

_URL = re.compile(r"https?://[^\s<>\"\\^`{|}]+", re.IGNORECASE)


class Needy(Protocol):
    """What is known of a template without running it."""

    @property
    def declared(self) -> dict[str, Declared]: ...
    @property
    def known(self) -> frozenset[str]: ...
    @property
    def required(self) -> frozenset[str]: ...
    @property
    def links(self) -> frozenset[str]: ...
    @property
    def headline(self) -> frozenset[str]: ...


def variable_faults(template: Needy, variables: Mapping[str, Any]) -> list[Fault]:
    """Return everything that keeps these variables from filling the template; `where` is `variables/<name>`."""
    if len(variables) > MAX_VARIABLES:
        return [Fault("variables", "too_many", f"has {len(variables)} variables; at most {MAX_VARIABLES} are read")]
    given = {name: value for name, value in variables.items() if value is not None}
    faults = [*_absences(template, given), *_misspellings(template, given)]
    for name, value in given.items():
        if name in template.known and (found := _value_fault(template, name, value)):
            faults.append(Fault(f"variables/{name}", *found))
    return faults


def unused(template: Needy, variables: Mapping[str, Any]) -> list[str]:
    """Return the names that were given but that the template has no place for."""
    return sorted(name for name in variables if name not in template.known)


def _absences(template: Needy, given: Mapping[str, Any]) -> Iterator[Fault]:
    for name in sorted(template.required - given.keys() - {UNSUBSCRIBE}):
        about = f": {template.declared[name].description}" if name in template.declared else ""
        yield Fault(f"variables/{name}", "missing", f"is missing{about}")


def _misspellings(template: Needy, given: Mapping[str, Any]) -> Iterator[Fault]:
    """An unknown name is let pass, one context may serve many templates, unless it looks like one that is absent."""
    absent = sorted(template.known - given.keys())
    for name in given.keys() - template.known:
        if close := get_close_matches(name[:100], absent, n=1, cutoff=0.8):
            yield Fault(
                f"variables/{name}", "unknown", f"is not a variable of this template; did you mean `{close[0]}`?"
            )


def _value_fault(template: Needy, name: str, value: object) -> tuple[str, str] | None:
    if name in template.declared and not _is_text(value):
        return "type", f"must be a string or a number, not {type(value).__name__}"
    if isinstance(value, str) and not value.strip():
        return ("blank", "is blank") if name in template.required else None
    return _character_fault(template, name, value) or _kind_fault(template, name, value)


def _character_fault(template: Needy, name: str, value: object) -> tuple[str, str] | None:
    if found := next(filter(None, map(CONTROL_IN_TEXT.search, _strings(value))), None):
        return "control_character", f"holds the control character {describe(found.group())}; remove it"
    if name in template.headline and (found := CONTROL.search(str(value))):
        return "line_break", f"stands in the subject and must be one line; it holds {describe(found.group())}"
    return None


def _kind_fault(template: Needy, name: str, value: object) -> tuple[str, str] | None:
    kind = template.declared[name].type if name in template.declared else "text"
    if name in template.links or kind == "url":
        return _url_fault(value)
    return _email_fault(value) if kind == "email" else None


def _is_text(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _url_fault(value: object) -> tuple[str, str] | None:
    if isinstance(value, str) and len(value) <= MAX_URL and _URL.fullmatch(value):
        try:
            if urlsplit(value).hostname:
                return None
        except ValueError:
            pass
    return "url", f"must be an absolute http:// or https:// address of at most {MAX_URL} characters, without spaces"


def _email_fault(value: object) -> tuple[str, str] | None:
    try:
        address = parse_address(str(value), private=True)
    except AddressRefused as error:
        return error.code, f"must be an email address: it {error}"
    return ("display_name", "must be a bare address, without a name") if address.name else None


def _strings(value: object) -> Iterator[str]:
    pending = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, Mapping):
            pending += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple):
            pending += one
