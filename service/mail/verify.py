"""The gate: reads finished bytes back with another parser and says where they differ from what was meant.

Whatever slips past the rules for input must still come out as exactly the headers, mailboxes and parts that the mail
was built from; a header more, or a recipient more, is a difference.
"""

from __future__ import annotations

from binascii import Error, a2b_base64, a2b_qp
from collections.abc import Iterator, Mapping, Sequence
from email.header import decode_header, make_header
from email.message import Message
from email.parser import HeaderParser
from email.utils import getaddresses
from functools import lru_cache

import msgspec

from service.mail.addresses import Address
from service.mail.header_encoding import LIMIT
from service.mail.parts import Leaf, Node

_parser = HeaderParser()  # the compat32 policy: it reads lines as they stand and decodes nothing by itself


class Intent(msgspec.Struct, frozen=True):
    """What the bytes must say: mailboxes, the other fields in order, the tree of parts."""

    sender: Address
    to: Sequence[Address]
    cc: Sequence[Address]
    reply_to: Sequence[Address]
    fields: Mapping[str, str]
    tree: Leaf | Node
    smtputf8: bool


def differences(data: bytes, intent: Intent) -> list[str]:
    """Return every way in which the bytes are not the mail that was meant; empty is good."""
    if broken := list(_broken_lines(data)):
        return broken
    head, _, body = data.partition(b"\r\n\r\n")
    if not (head.isascii() or intent.smtputf8):
        return ["a header holds octets that are not ASCII"]
    message = _read_head(head)
    return [*_header_differences(message, intent), *_part_differences(PartHead.of(message), body, intent.tree, "body")]


def _broken_lines(data: bytes) -> Iterator[str]:
    lines = data.split(b"\r\n")
    if data.count(b"\r") != len(lines) - 1 or data.count(b"\n") != len(lines) - 1:
        yield "a line is not ended by CR LF"
    if b"\0" in data:
        yield "there is a NUL"
    if max(map(len, lines)) > LIMIT:
        yield "a line is longer than 998 octets"
    if not data.endswith(b"\r\n"):
        yield "the last line is not ended"


def _read_head(head: bytes) -> Message:
    return _parser.parsestr(head.decode("utf-8", "surrogateescape") + "\r\n\r\n")


class PartHead(msgspec.Struct, frozen=True):
    """The headers of one part, as the standard library reads them."""

    names: tuple[str, ...]
    content_type: str
    encoding: str
    boundary: str
    filename: str | None
    content_id: str | None

    @classmethod
    def of(cls, message: Message) -> PartHead:
        """Take from a parsed header block what describes its content."""
        return cls(
            tuple(message.keys()),
            message.get_content_type(),
            message.get("Content-Transfer-Encoding", ""),
            str(message.get_boundary("")),
            message.get_filename(),
            message.get("Content-ID"),
        )


@lru_cache(maxsize=256)
def _read_part_head(head: bytes) -> PartHead:
    """Text parts have the same few heads in every mail: reading each anew would be half the gate's time."""
    return PartHead.of(_read_head(head))


@lru_cache(maxsize=1024)
def _read_mailboxes(field: str) -> list[tuple[str, str]]:
    unfolded = field.replace("\r\n", "").replace("\n", "")
    return [(_decoded(name), spec) for name, spec in getaddresses([unfolded])]


def _header_differences(message: Message, intent: Intent) -> Iterator[str]:
    mailboxes = {"From": [intent.sender], "To": intent.to, "Cc": intent.cc, "Reply-To": intent.reply_to}
    mailboxes = {name: addresses for name, addresses in mailboxes.items() if addresses}
    hidden = ["To"] if not intent.to and not intent.cc else []
    content = ["Content-Type"] if isinstance(intent.tree, Node) else ["Content-Type", "Content-Transfer-Encoding"]
    meant = [*list(mailboxes)[:1], *hidden, *list(mailboxes)[1:], *intent.fields, "MIME-Version", *content]
    if message.keys() != meant:
        yield f"the headers are {message.keys()}, not {meant}"
        return
    for name, addresses in mailboxes.items():
        if _read_mailboxes(message[name]) != [(address.name, address.addr_spec) for address in addresses]:
            yield f"{name} reads back as other mailboxes"
    if hidden and message["To"] != "undisclosed-recipients:;":
        yield "To reads back as mailboxes"
    for name, value in intent.fields.items():
        if _decoded(message[name].replace("\r\n", "").replace("\n", "")) != value:
            yield f"{name} reads back as another text"


def _part_differences(head: PartHead, body: bytes, part: Leaf | Node, path: str) -> Iterator[str]:
    if isinstance(part, Leaf):
        yield from _leaf_differences(head, body, part, path)
        return
    if head.content_type != f"multipart/{part.subtype}":
        yield f"{path} is {head.content_type}, not multipart/{part.subtype}"
        return
    delimiter = b"--" + head.boundary.encode()
    before, *pieces, after = (b"\r\n" + body).split(b"\r\n" + delimiter)
    if before or after != b"--\r\n" or len(pieces) != len(part.parts) or body.count(delimiter) != len(pieces) + 1:
        yield f"{path} is not {len(part.parts)} parts and nothing else"
        return
    for index, (piece, child) in enumerate(zip(pieces, part.parts, strict=True)):
        inner, _, content = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        inner_head = _read_part_head(inner)
        if inner_head.names != _part_headers(child):
            yield f"{path}/{index} has the headers {inner_head.names}"
        yield from _part_differences(inner_head, content, child, f"{path}/{index}")


def _leaf_differences(head: PartHead, body: bytes, leaf: Leaf, path: str) -> Iterator[str]:
    if head.content_type != leaf.content_type.partition(";")[0]:
        yield f"{path} is {head.content_type}, not {leaf.content_type}"
    if head.filename != leaf.filename:
        yield f"{path} has another file name"
    if head.content_id != (None if leaf.content_id is None else f"<{leaf.content_id}>"):
        yield f"{path} has another content id"
    if _content(head.encoding, body) != leaf.content:
        yield f"{path} has other content"


def _part_headers(part: Leaf | Node) -> tuple[str, ...]:
    if isinstance(part, Node):
        return ("Content-Type",)
    disposition = ("Content-Disposition",) if part.filename is not None else ()
    content_id = ("Content-ID",) if part.content_id is not None else ()
    return ("Content-Type", "Content-Transfer-Encoding", *disposition, *content_id)


def _content(encoding: str, body: bytes) -> bytes | None:
    match encoding:
        case "7bit":
            return body
        case "quoted-printable":
            return a2b_qp(body)
        case "base64":
            try:
                return a2b_base64(body)
            except Error:
                return None
        case _:
            return None


def _decoded(text: str) -> str:
    return str(make_header(decode_header(text))) if "=?" in text else text
