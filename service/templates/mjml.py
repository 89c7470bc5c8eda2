"""MJML with Jinja in it, made HTML with Jinja in it, once: nobody's mail waits for MJML.

Neither MJML nor an HTML parser can read Jinja, so each tag is hidden first: a statement as a comment, which may stand
between any two elements, an expression as a word, which may stand in any text or attribute. Both come out where they
went in, and are put back. Where MJML keeps words only, in a title and a preview, the whole content goes as one word.
"""

from __future__ import annotations

import re

import css_inline
import jinja2
from mjml import mjml2html

_HIDDEN = re.compile(r"<!--jinja-(\d+)-->|jinja0(\d+)0jinja")
_WORDS_ONLY = re.compile(r"(?<=<mj-title>).*?(?=</mj-title>)|(?<=<mj-preview>).*?(?=</mj-preview>)", re.DOTALL)
_STATEMENT = {"block_begin": "block_end", "raw_begin": "raw_begin", "raw_end": "raw_end"}
_LINK = re.compile(
    r"""(?:href|src|action|background|poster|cite)\s*=\s*["']?\s*(\{\{.*?\}\})""", re.DOTALL | re.IGNORECASE
)
# The MJML compiler leaves these in the head, where some mail readers do not look.
_INLINE_STYLE = re.compile(r'<mj-style inline="inline">(.*?)</mj-style>', re.DOTALL)


def compile_markup(mjml: str, environment: jinja2.Environment) -> str:
    """Return the HTML document that a template's MJML stands for, its Jinja tags untouched.

    Raises jinja2.TemplateSyntaxError, or ValueError where MJML cannot read the markup or loses a tag of it.
    """
    styles = "".join(_INLINE_STYLE.findall(mjml))
    hidden, tags = _hide(_INLINE_STYLE.sub("", mjml), environment)
    try:
        markup = mjml2html(hidden, fonts={})
    except Exception as error:  # the binding raises nothing narrower
        raise ValueError(f"this is not MJML: {error}") from error
    inliner = css_inline.CSSInliner(
        inline_style_tags=False, keep_style_tags=True, load_remote_stylesheets=False, extra_css=styles
    )
    return _reveal(inliner.inline(markup), tags)


def link_expressions(markup: str) -> list[str]:
    """Return the Jinja expressions with which the address of a link, an image or a form begins."""
    return _LINK.findall(markup)


def _hide(source: str, environment: jinja2.Environment) -> tuple[str, list[str]]:
    tags: list[str] = []

    def word(tag: str) -> str:
        tags.append(tag)
        return f"jinja0{len(tags) - 1}0jinja"

    def comment(tag: str) -> str:
        tags.append(tag.strip("\n"))
        return f"<!--jinja-{len(tags) - 1}-->"

    shown, tag, until = [], "", ""
    for _, kind, value in environment.lex(_WORDS_ONLY.sub(lambda found: word(found[0]), source)):
        if not until:
            if kind == "data":
                shown.append(value)
                continue
            if kind.startswith(("comment", "linecomment")):
                continue
            until = _STATEMENT.get(kind, "variable_end")
        tag += value
        if kind == until:
            shown.append(word(tag) if kind == "variable_end" else comment(tag))
            tag = until = ""
    return "".join(shown), tags


def _reveal(markup: str, tags: list[str]) -> str:
    found = {int(a or b) for a, b in _HIDDEN.findall(markup)}
    if lost := [tag for index, tag in enumerate(tags) if index not in found]:
        raise ValueError(f"MJML drops what is written here, move it: {', '.join(lost)}")
    return _HIDDEN.sub(lambda match: tags[int(match[1] or match[2])], markup)
