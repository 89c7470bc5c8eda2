"""Attachments: opaque bytes with a safe name and a plain media type; images shown in the HTML by content id."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

import msgspec

from service.mail.characters import CONTROL
from service.mail.faults import Fault

MAX_FILENAME = 120  # characters; longer names are cut before their extension

MAX_CONTENT_TYPE = 500  # characters
_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
_ATOM = r"[!#$%&'*+.^_`{|}~0-9A-Za-z-]+"
_QUOTED = r'"(?:[ !#-\[\]-~]|\\["\\])*"'
_MEDIA_TYPE = re.compile(rf"{_NAME}/{_NAME}((?: ?; ?{_ATOM}=(?:{_ATOM}|{_QUOTED}))*)")  # RFC 2045, 5.1
_PARAMETER = re.compile(rf"; ?({_ATOM})=(?:{_ATOM}|{_QUOTED})")
_CONTENT_ID = re.compile(r"[A-Za-z0-9._+-]{1,128}(@[A-Za-z0-9.-]{1,128})?")
_FORBIDDEN = re.compile(r'[<>:"|?*]')  # what no common file system takes

_SPACE = re.compile(r"\s")  # of any kind: readers strip some kinds at the ends, some not


class Attachment(msgspec.Struct, frozen=True):
    """A file that goes with a mail; never unpacked, never looked into.

    `content_type` is `type/subtype`, with parameters where they matter: `text/calendar; method=REQUEST`. With
    `content_id` it is an inline part that the HTML shows as `<img src="cid:…">`; without, a file to save. `filename` is
    reduced to a safe base name when sent.
    """

    filename: str
    content: bytes
    content_type: str = "application/octet-stream"
    content_id: str | None = None

    @property
    def digest(self) -> bytes:
        """The SHA-256 of the bytes."""
        return hashlib.sha256(self.content).digest()


def attachment_faults(attachments: Sequence[Attachment], html: str | None) -> list[Fault]:
    """Return every fault of a mail's attachments, by index."""
    faults = []
    inline: set[str] = set()
    for index, attachment in enumerate(attachments):
        found = _type_fault(attachment.content_type)
        if not found and (content_id := attachment.content_id) is not None:
            found = _inline_fault(content_id, inline, html)
            inline.add(content_id)
        if found:
            faults.append(Fault(f"attachments/{index}", *found))
    return faults


def safe_filename(name: str) -> str:
    """Reduce a name to a base name that cannot climb folders, break headers, or show itself reordered.

    Drops control, format (right-to-left override) and surrogate characters, keeps what follows the last slash of
    either kind, replaces what file systems refuse, cuts to 120 characters before the extension. Never empty.
    """
    visible = "".join(c for c in name if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"))
    base = re.split(r"[/\\]", unicodedata.normalize("NFC", visible))[-1]
    base = _FORBIDDEN.sub("_", _SPACE.sub(" ", base)).strip(" .")
    if len(base) > MAX_FILENAME:
        stem, dot, extension = base.rpartition(".")
        base = stem[: MAX_FILENAME - len(dot + extension)] + dot + extension if 0 < len(extension) <= 16 else base
    return base[:MAX_FILENAME].strip(" .") or "attachment"


def media_type(content_type: str) -> str:
    """Return a content type in one spelling: `type/subtype` in lower case, its parameters as they were given."""
    kind, semicolon, parameters = content_type.partition(";")
    return kind.strip().lower() + (f"; {parameters.strip()}" if semicolon else "")


def _type_fault(content_type: str) -> tuple[str, str] | None:
    found = None if CONTROL.search(content_type) else _MEDIA_TYPE.fullmatch(content_type)
    if found is None or len(content_type) > MAX_CONTENT_TYPE:
        return "content_type", "has a content type that is not `type/subtype`, with `; name=value` for each parameter"
    names = [name.lower() for name in _PARAMETER.findall(found[1])]
    if len(set(names)) < len(names) or set(names) & {"name", "filename", "boundary"}:
        return (
            "content_type",
            "has a content type that repeats a parameter, or has `name` (that is `filename`) or `boundary`",
        )
    if content_type.lower().split("/")[0] in ("multipart", "message"):
        return "content_type", f"has the content type {content_type}; send it as application/octet-stream"
    return None


def _inline_fault(content_id: str, seen: set[str], html: str | None) -> tuple[str, str] | None:
    if not _CONTENT_ID.fullmatch(content_id):
        return (
            "content_id",
            "has a content id with more than letters, digits, `.`, `_`, `+`, `-` and one `@`",
        )
    if content_id in seen:
        return "content_id", f"repeats the content id {content_id}"
    if html is None or f"cid:{content_id}" not in html:
        return "content_id", f'is inline, but the HTML does not show it; write <img src="cid:{content_id}">'
    return None
