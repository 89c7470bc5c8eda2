"""MIME parts: leaves and multiparts, their transfer encodings and boundaries."""

from __future__ import annotations

from binascii import b2a_base64, b2a_qp
from collections.abc import Sequence
from hashlib import blake2b

import msgspec

from service.mail.header_encoding import parameter

_ASCII = bytes(range(128))
_PLAIN_LINE = 78  # columns a line of text may have and still go as it is
_BASE64_LINE = 57  # octets that make 76 columns (RFC 2045 6.8)


class Leaf(msgspec.Struct, frozen=True):
    """One body part: a text (UTF-8, lines ended by CRLF) or the bytes of a file."""

    content_type: str
    content: bytes
    filename: str | None = None
    content_id: str | None = None


class Node(msgspec.Struct, frozen=True):
    """A multipart: `subtype` is alternative, related or mixed."""

    subtype: str
    parts: tuple[Leaf | Node, ...]


def text_leaf(subtype: str, text: str) -> Leaf:
    """Make a text part; every kind of line end becomes CRLF, and the last line gets one."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = text.replace("\n", "\r\n")
    return Leaf(f"text/{subtype}", (lines if lines.endswith("\r\n") else lines + "\r\n").encode())


def serialise(part: Leaf | Node, seed: str) -> tuple[list[str], bytes]:
    """Return a part's header fields and its encoded body; the same seed gives the same boundaries."""
    if isinstance(part, Node):
        return _multipart(part, seed)
    return _text(part) if part.filename is None and part.content_id is None else _file(part)


def _multipart(node: Node, seed: str) -> tuple[list[str], bytes]:
    # "=_" cannot occur in quoted-printable or base64, and 7bit is not used where it does: no search is needed
    boundary = f"=_{blake2b(seed.encode(), digest_size=15).hexdigest()}"
    chunks = []
    for index, part in enumerate(node.parts):
        fields, body = serialise(part, f"{seed}/{index}")
        head = "\r\n".join([f"--{boundary}", *fields, "", ""])
        chunks += [head.encode(), body, b"\r\n"]
    chunks.append(f"--{boundary}--\r\n".encode())
    return [f'Content-Type: multipart/{node.subtype}; boundary="{boundary}"'], b"".join(chunks)


def _text(leaf: Leaf) -> tuple[list[str], bytes]:
    encoding, body = _encode_text(leaf.content)
    return [f"Content-Type: {leaf.content_type}; charset=utf-8", f"Content-Transfer-Encoding: {encoding}"], body


def _encode_text(content: bytes) -> tuple[str, bytes]:
    foreign = len(content.translate(None, _ASCII))
    if not foreign and b"=_" not in content and max(map(len, content.split(b"\r\n"))) <= _PLAIN_LINE:
        return "7bit", content
    if foreign * 6 > len(content):
        return "base64", base64_lines(content)
    return "quoted-printable", b2a_qp(content, istext=True)


def _file(leaf: Leaf) -> tuple[list[str], bytes]:
    disposition = "inline" if leaf.content_id is not None else "attachment"
    fields = [f"Content-Type: {leaf.content_type}", "Content-Transfer-Encoding: base64"]
    fields.append(f"Content-Disposition: {disposition};\r\n {parameter('filename', leaf.filename or 'attachment')}")
    if leaf.content_id is not None:
        fields.append(f"Content-ID: <{leaf.content_id}>")
    return fields, base64_lines(leaf.content)


def base64_lines(content: bytes) -> bytes:
    """Encode bytes as base64 lines of 76 columns ended by CRLF."""
    rows: Sequence[bytes] = [
        b2a_base64(content[at : at + _BASE64_LINE], newline=False) for at in range(0, len(content), _BASE64_LINE)
    ]
    return b"\r\n".join([*rows, b""]) or b"\r\n"
