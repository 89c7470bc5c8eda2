"""Header fields as bytes: RFC 5322 folding, RFC 2047 words, RFC 2231 parameters.

Written by hand because the standard library's policy decodes what looks like an encoded-word and writes out what it
held, line breaks included, and takes a millisecond per mail.  Every function takes text without control characters.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Iterable
from urllib.parse import quote

from service.mail.addresses import Address

LINE = 76  # columns a folded line should not pass (RFC 5322 2.1.1 recommends 78)
LIMIT = 998  # octets a line must not pass

_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_FOLDABLE = re.compile(r"[!-~]+(?: [!-~]+)*")
_WORD_OCTETS = 39  # of UTF-8 in one encoded-word, cut between characters: 64 columns with its frame (RFC 2047 2: 75)


def text_field(name: str, value: str) -> str:
    """Serialise an unstructured field such as Subject: plain ASCII folded at spaces, else encoded-words."""
    if _FOLDABLE.fullmatch(value) and "=?" not in value:
        folded = _fold(f"{name}:", value.split(" "))
        if max(map(len, folded.split("\r\n"))) <= LIMIT:
            return folded
    return _fold(f"{name}:", _encoded_words(value))


def address_field(name: str, addresses: Iterable[Address]) -> str:
    """Serialise an address list: one mailbox after the other, each with its display name quoted or encoded."""
    mailboxes = [words for address in addresses for words in _mailbox(address)]
    mailboxes[-1] = mailboxes[-1].removesuffix(",")
    return _fold(f"{name}:", mailboxes)


def parameter(name: str, value: str) -> str:
    """Serialise one parameter of Content-Type or Content-Disposition; RFC 2231 where a quoted string would not do."""
    if value.isascii() and "=?" not in value:
        escaped = value.replace("\\", r"\\").replace('"', r"\"")
        return f'{name}="{escaped}"'
    return f"{name}*=utf-8''{quote(value, safe='')}"


def _mailbox(address: Address) -> list[str]:
    if not address.name:
        return [f"{address.addr_spec},"]
    angle = f"<{address.addr_spec}>,"
    if address.name.isascii() and "=?" not in address.name:
        if _ATOMS.fullmatch(address.name):
            return [*address.name.split(" "), angle]
        escaped = address.name.replace("\\", r"\\").replace('"', r"\"")
        return [f'"{escaped}"', angle]
    return [*_encoded_words(address.name), angle]


def _encoded_words(value: str) -> list[str]:
    words, chunk = [], b""
    for character in value:
        octets = character.encode()
        if len(chunk) + len(octets) > _WORD_OCTETS:
            words.append(_encoded_word(chunk))
            chunk = b""
        chunk += octets
    return [*words, _encoded_word(chunk)]


def _encoded_word(octets: bytes) -> str:
    return f"=?utf-8?b?{b2a_base64(octets, newline=False).decode()}?="


def _fold(line: str, words: Iterable[str]) -> str:
    """Join words by single spaces, breaking before a word that would pass the column.

    No break before a plain first word: a field whose first line is empty is legal, but some software drops it.
    """
    lines: list[str] = []
    breakable = False
    for word in words:
        if (breakable or word.startswith("=?")) and len(line) + 1 + len(word) > LINE:
            lines.append(line)
            line = ""
        line += " " + word
        breakable = True
    return "\r\n".join([*lines, line])
