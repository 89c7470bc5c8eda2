"""Characters that must never reach a header or an envelope, and how to name them in an error."""

from __future__ import annotations

import re
import unicodedata

# C0, DEL, C1 (NEL is in it), LINE and PARAGRAPH SEPARATOR, lone surrogates: none may stand in a header (RFC 5322
# 2.2, RFC 6532 3.2); the separators matter because software splits lines at them (Python's str.splitlines does).
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# The same without tab and the two line ends, for text of several lines.
CONTROL_IN_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# Overrides and isolates reorder what the reader sees: "exe.fdp" shown as "pdf.exe".
BIDI = re.compile("[\u202a-\u202e\u2066-\u2069]")
# RFC 2047. Python decodes one found in a subject or a name and writes what it held, a line break and "Bcc:" included.
ENCODED_WORD = re.compile(r"=\?[^?]*\?[^?]*\?[^?]*\?=")


def describe(character: str) -> str:
    """Name a character by code point, and by Unicode name where it has one."""
    name = unicodedata.name(character, "")
    return f"U+{ord(character):04X} {name}".rstrip()


def problem(text: str) -> tuple[str, str] | None:
    """Return (code, message) for the first thing that must not stand in a header, or None."""
    usual = text.isascii() and text.isprintable()  # two looks instead of a search
    if not usual and (found := CONTROL.search(text)):
        return "control_character", f"holds the control character {describe(found.group())}; remove it"
    if "=?" in text and ENCODED_WORD.search(text):
        return "encoded_word", "holds an encoded-word (=?charset?…?=); give the plain text, it is encoded when sent"
    return None


def unsendable(body: str) -> str | None:
    """Return a character no body can carry: NUL (RFC 5322 2.2) or a lone surrogate, which has no UTF-8."""
    if "\0" in body:
        return "\0"
    try:
        body.encode()
    except UnicodeEncodeError as error:
        return body[error.start]
    return None
