"""What a tenant writes for one template: its words in each language, and what they are filled with."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from service.templates.source import Declared

KEY = re.compile(r"[a-z][a-z0-9_]{0,63}")


class Words(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One language: a subject, and the body as MJML or as HTML; without `text` it is made from the HTML."""

    subject: str
    mjml: str | None = None
    html: str | None = None
    text: str | None = None


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What filling in one language takes, found when it was compiled; see `service.templates.template.Template`."""

    key: str
    declared: dict[str, Declared]
    known: frozenset[str]
    required: frozenset[str]
    links: frozenset[str]
    headline: frozenset[str]


def chain(locale: str | None) -> list[str]:
    """The names under which a language is looked for: `de-AT` and `de_AT` as `de-at`, then `de`."""
    if locale is None:
        return []
    parts = spelled(locale).split("-")
    return ["-".join(parts[:length]) for length in range(len(parts), 0, -1)]


def nearest(locales: Iterable[str], wanted: str | None, default: str) -> str | None:
    """The language of those there are that is nearest to the wanted one, or else the default; None without either."""
    there = {spelled(each): each for each in locales}
    return next((there[name] for name in [*chain(wanted), spelled(default)] if name in there), None)


def spelled(locale: str) -> str:
    """Return a language tag in one spelling: `de_AT` is `de-at`."""
    return locale.lower().replace("_", "-")
