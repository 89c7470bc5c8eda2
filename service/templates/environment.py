"""The Jinja in which built-in templates are written."""

from __future__ import annotations

import jinja2
from markupsafe import Markup, escape


def environment(*, autoescape: bool) -> jinja2.Environment:
    """Make the environment of built-in templates: strict about what is undefined, and without a loader.

    These templates are part of the program. What others write needs jinja2.sandbox and limits in its place.
    """
    made = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        autoescape=autoescape,  # noqa: S701 - off for subjects and text parts, which are no HTML
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {"paragraphs": paragraphs, "lines": lines}
    return made


def paragraphs(text: object) -> list[str]:
    """Cut text at empty lines."""
    unified = str(text).replace("\r\n", "\n").replace("\r", "\n")
    return [part.strip("\n") for part in unified.split("\n\n") if part.strip()]


def lines(text: object) -> Markup:
    """Escape text for HTML, its line ends as <br />."""
    return Markup("<br />").join(escape(line) for line in str(text).splitlines())


HTML = environment(autoescape=True)
PLAIN = environment(autoescape=False)
