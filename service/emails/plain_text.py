"""The plain text of an HTML mail, for readers and filters that want one."""

from __future__ import annotations

import re

from inscriptis import get_text
from inscriptis.css_profiles import CSS_PROFILES
from inscriptis.model.config import ParserConfig

_BLANK_LINES = re.compile(r"\n{3,}")
MAX_HTML = 500_000  # characters looked at: a text part past this serves nobody


def text_of(html: str) -> str:
    """Return the text of an HTML document, links as `[text](address)`; about 1 ms for an ordinary mail."""
    config = ParserConfig(css=CSS_PROFILES["strict"].copy(), display_links=True)
    text = get_text(html[:MAX_HTML], config)
    return _BLANK_LINES.sub("\n\n", "\n".join(line.rstrip() for line in text.splitlines())).strip() + "\n"
