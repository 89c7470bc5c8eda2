"""The plain text of an HTML mail, for readers and filters that want one."""

from __future__ import annotations

import re

from inscriptis import get_text
from inscriptis.css_profiles import CSS_PROFILES
from inscriptis.model.config import ParserConfig

_BLANK_LINES = re.compile(r"\n{3,}")
MAX_HTML = 100_000  # characters looked at: Gmail cuts a mail there too, and each takes up to 2.5 µs


def text_of(html: str) -> str:
    """Return the text of an HTML document, links as `[text](address)`, what lies past 100,000 characters as `…`.

    Takes about 2 ms for an ordinary mail, a quarter of a second at worst: call it in a thread for a long one.
    """
    config = ParserConfig(css=CSS_PROFILES["strict"].copy(), display_links=True)
    # the comment in front keeps the parser from refusing text that begins with an XML declaration
    text = get_text(f"<!---->{html[:MAX_HTML]}", config)
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    return _BLANK_LINES.sub("\n\n", lines).strip() + ("\n…\n" if len(html) > MAX_HTML else "\n")
