"""Rendering: a template's key and variables in, a mail's subject, HTML and text out.

Every template is compiled once per process: `warm()` does it for all of them at start-up, in a thread; what was not
warmed is compiled when first asked for, in about 10 ms.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from threading import Lock
from typing import Any

import jinja2
import msgspec

from service.mail.faults import Fault, Refused
from service.mail.headers import subject_faults
from service.mail.plain_text import text_of
from service.templates.source import Declared, Folders, Source
from service.templates.template import Rendered, Template, compile_template
from service.templates.variables import unused, variable_faults

__all__ = [
    "MissingVariables", "Rendered", "TemplateInfo", "UnknownTemplate", "VariablesRefused",
    "check", "render", "required", "templates", "text_of", "warm",
]  # fmt: skip


class UnknownTemplate(Refused):
    """No template has this key; `known` are those that there are."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name, self.known = name, list(known)
        message = f"there is no template {name[:80]!a}; there are {', '.join(self.known)}"
        super().__init__([Fault("key", "unknown_template", message)])


class VariablesRefused(Refused):
    """These variables cannot fill the template; `faults` names every one that is wrong, as `variables/<name>`."""


class MissingVariables(VariablesRefused):
    """Some required variables are missing: `names` are all of them; `faults` also holds whatever else is wrong."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        super().__init__(faults)
        missing = (fault.where for fault in self.faults if fault.code == "missing")
        self.names = [where.removeprefix("variables/") for where in missing]


class TemplateInfo(msgspec.Struct, frozen=True):
    """A template as it describes itself; `example` fills it in for a preview."""

    key: str
    subject: str
    variables: dict[str, Declared]
    example: dict[str, str]


_source: Source = Folders()
_compiled: dict[str, Template] = {}  # by variant
_lock = Lock()


def render(template_key: str, variables: Mapping[str, Any], locale: str | None = None) -> Rendered:
    """Fill a template in: some 50 µs. Raises UnknownTemplate, MissingVariables or VariablesRefused."""
    template = _checked(template_key, variables, locale)
    try:
        rendered = template.render(variables)
    except (jinja2.UndefinedError, TypeError) as error:  # `user.name` where user has no name, or is no object
        raise VariablesRefused([Fault("variables", "undefined", f"cannot fill the template: {error}")]) from error
    if faults := subject_faults(rendered.subject):
        raise VariablesRefused(faults)
    return rendered if rendered.text is not None else msgspec.structs.replace(rendered, text=text_of(rendered.html))


def check(template_key: str, variables: Mapping[str, Any], locale: str | None = None) -> list[str]:
    """Raise what `render` would of these variables, in some microseconds; return the names that are not used."""
    return unused(_checked(template_key, variables, locale), variables)


def required(template_key: str, locale: str | None = None) -> frozenset[str]:
    """Return the variables without which a template cannot be filled in. Raises UnknownTemplate."""
    return _find(template_key, locale).required


def templates() -> list[TemplateInfo]:
    """Describe every template, for previews and documentation."""
    return [_describe(_find(key, None)) for key in _source.keys()]  # noqa: SIM118 - no mapping


def warm() -> None:
    """Compile every template, about 0.1 s in all with what it imports; call it in a thread at start-up."""
    for key in _source.keys():  # noqa: SIM118 - no mapping
        _find(key, None)


def _describe(template: Template) -> TemplateInfo:
    example = {name: variable.example for name, variable in template.declared.items()}
    return TemplateInfo(template.key, template.subject.render(example), template.declared, example)


def _checked(key: str, variables: Mapping[str, Any], locale: str | None) -> Template:
    template = _find(key, locale)
    if faults := variable_faults(template, variables):
        missing = any(fault.code == "missing" for fault in faults)
        raise (MissingVariables if missing else VariablesRefused)(faults)
    return template


def _find(key: str, locale: str | None) -> Template:
    variant = _source.find(key, locale)
    if variant is None:
        raise UnknownTemplate(key, _source.keys())
    if found := _compiled.get(variant):
        return found
    with _lock:
        if variant not in _compiled:
            _compiled[variant] = compile_template(key, _source.read(variant))
        return _compiled[variant]
