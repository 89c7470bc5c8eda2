"""Where the text of templates comes from: folders, one per template."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

import msgspec

BUILT_IN = Path(__file__).parent / "builtin"
UNSUBSCRIBE = "unsubscribe_url"
"""The variable that nobody need give: where this mail's reader unsubscribes, empty for mail that one cannot refuse."""
_LAYOUT = "_layout"
_SLOT = re.compile(r"\[\[ (\w+) \]\]")


class Declared(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a template says about one of its variables.

    `type` is what a value must be: `text` (a string or a number), `url` (an absolute http or https address) or
    `email`. An absent optional one is replaced by `default`.
    """

    description: str = ""
    example: str = ""
    type: str = "text"
    required: bool = False
    default: str = ""


class Files(msgspec.Struct, frozen=True):
    """The text of one template, its layout filled in: Jinja all over, MJML in `mjml`.

    `text` is None where the text part is to be made from the HTML. `variables` is None where nothing is declared:
    then every variable without a `default()` is required. `html` is the finished document, in place of `mjml`.
    """

    subject: str
    mjml: str
    text: str | None
    variables: dict[str, Declared] | None
    html: str | None = None


class Source(Protocol):
    """Finds templates by key. Another one can hold versions, locales, or what tenants wrote."""

    def keys(self) -> list[str]:
        """Return the keys of all templates."""
        ...

    def find(self, key: str, locale: str | None) -> str | None:
        """Name the variant of a template nearest to `locale` (BCP 47), or None if there is no such template.

        Variants are few, whatever locales are asked for: each is compiled and kept.
        """
        ...

    def read(self, variant: str) -> Files:
        """Return the text of one variant."""
        ...


class Folders:
    """A folder of templates, in one language; `_layout` holds what surrounds their bodies.

    A template is a folder of `subject.txt`, `preheader.txt`, `reason.txt`, `body.mjml`, `variables.json` and, where the
    text part is not to be made from the HTML, `body.txt`.
    """

    def __init__(self, root: Path = BUILT_IN) -> None:
        self._root = root
        self._keys = sorted(body.parent.name for body in root.glob("[!_]*/body.mjml"))

    def keys(self) -> list[str]:
        """Return the folders' names, sorted."""
        return list(self._keys)

    def find(self, key: str, locale: str | None) -> str | None:
        """Return the folder of that name, if there is one."""
        return key if key in self._keys else None

    def read(self, key: str) -> Files:
        """Return one template within its layout."""
        slots = {"language": "en", "content": self._text(key, "body.mjml")}
        slots |= {name: self._text(key, f"{name}.txt").strip() for name in ("subject", "preheader", "reason")}
        text = None
        if (self._root / key / "body.txt").is_file():
            text = _fill(self._text(_LAYOUT, "body.txt"), slots | {"content": self._text(key, "body.txt").strip()})
        return Files(slots["subject"], _fill(self._text(_LAYOUT, "body.mjml"), slots), text, self._variables(key))

    def _variables(self, key: str) -> dict[str, Declared]:
        own, shared = (
            msgspec.json.decode(self._text(folder, "variables.json"), type=dict[str, Declared])
            for folder in (key, _LAYOUT)
        )
        return own | shared

    def _text(self, *path: str) -> str:
        return self._root.joinpath(*path).read_text("utf-8")


def _fill(layout: str, slots: dict[str, str]) -> str:
    return _SLOT.sub(lambda slot: slots[slot[1]], layout)
