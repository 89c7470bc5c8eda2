"""Reads a mail the way a person will look at it; the shapes and field names are those of Mailpit's API."""

import email.header
import email.utils
import hashlib
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from email.message import Message as Parsed
from email.parser import BytesParser
from typing import Annotated

import msgspec
from inscriptis import get_text
from inscriptis.model.config import ParserConfig

from service.dev.mailbox.sink import Received

SNIPPET = 250  # characters
SEARCHED = 100_000  # characters of the body


class Address(msgspec.Struct, rename="pascal", frozen=True):
    """A name, which may be empty, and an address."""

    name: str
    address: str


class Attachment(msgspec.Struct, rename="pascal", frozen=True, kw_only=True):
    """A part of the mail that is not its text; ``size`` in bytes."""

    part_id: Annotated[str, msgspec.Meta(description="its place in the mail")] = msgspec.field(name="PartID")
    file_name: str
    content_type: str
    content_id: str = msgspec.field(name="ContentID")
    size: int
    checksums: dict[str, str]


class Summary(msgspec.Struct, rename="pascal", frozen=True, kw_only=True):
    """One line of the list. ``created`` is when it came, in UTC; ``attachments`` how many; ``size`` in bytes."""

    id: str = msgspec.field(name="ID")
    message_id: str = msgspec.field(name="MessageID")
    read: bool
    sender: Address | None = msgspec.field(name="From")
    to: list[Address]
    cc: list[Address]
    bcc: list[Address]
    reply_to: list[Address]
    subject: str
    created: datetime
    username: str = ""
    tags: list[str] = []
    size: int
    attachments: int
    snippet: str


class Unsubscribe(msgspec.Struct, rename="pascal", frozen=True):
    """What List-Unsubscribe (RFC 2369) and List-Unsubscribe-Post (RFC 8058) offer."""

    header: str
    links: list[str]
    errors: str
    header_post: str


class Message(msgspec.Struct, rename="pascal", frozen=True, kw_only=True):
    """A whole mail, but for the contents of its attachments."""

    id: str = msgspec.field(name="ID")
    message_id: str = msgspec.field(name="MessageID")
    sender: Address | None = msgspec.field(name="From")
    to: list[Address]
    cc: list[Address]
    bcc: list[Address]
    reply_to: list[Address]
    return_path: str
    subject: str
    list_unsubscribe: Unsubscribe
    date: datetime
    tags: list[str] = []
    username: str = ""
    text: str
    html: str = msgspec.field(name="HTML")
    size: int
    inline: list[Attachment]
    attachments: list[Attachment]


class Part(msgspec.Struct, frozen=True):
    """A leaf of the MIME tree, decoded."""

    id: str
    type: str
    content: bytes
    charset: str
    file_name: str
    content_id: str
    attached: bool

    @property
    def text(self) -> str:
        try:
            return self.content.decode(self.charset, errors="replace")
        except LookupError:  # a character set nobody knows
            return self.content.decode("utf-8", errors="replace")


class Mail:
    """One mail, parsed; whatever is broken in it is shown as it is, never an error."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.parsed = BytesParser().parsebytes(raw)
        self.parts = list(leaves(self.parsed))
        # as they are: asked by name, the parser hides 8-bit text behind a question mark
        self.fields = [(name, unfolded(value)) for name, value in self.parsed.raw_items()]

    def header(self, name: str) -> str:
        """A header's value, decoded and on one line; empty when it is missing."""
        return decoded(next(iter(self._values(name)), ""))

    def _values(self, name: str) -> list[str]:
        return [value for field, value in self.fields if field.lower() == name]

    def addresses(self, name: str) -> list[Address]:
        found = email.utils.getaddresses(self._values(name))
        return [Address(decoded(name), address) for name, address in found if address]

    @property
    def subject(self) -> str:
        return self.header("subject")

    @property
    def message_id(self) -> str:
        return self.header("message-id").strip("<> ")

    @property
    def html(self) -> str:
        return self._body("text/html")

    @property
    def text(self) -> str:
        """The plain text; made from the HTML when there is none, as a text-only mail program would."""
        return self._body("text/plain") or text_of(self.html)

    @property
    def attachments(self) -> list[Part]:
        return [part for part in self.parts if part.attached]

    @property
    def inline(self) -> list[Part]:
        """Parts that the HTML shows by ``cid:``."""
        return [part for part in self.parts if not part.attached and part.content_id]

    def headers(self) -> dict[str, list[str]]:
        """Every header by name, unfolded but not decoded."""
        found: dict[str, list[str]] = {}
        for name, value in self.fields:
            found.setdefault(name, []).append(value)
        return found

    def bcc(self, recipients: Sequence[str]) -> list[Address]:
        """Recipients of the envelope whom no header names, and those of a Bcc header."""
        named = self.addresses("bcc")
        known = {one.address.lower() for kind in ("to", "cc", "bcc") for one in self.addresses(kind)}
        return named + [Address("", one) for one in recipients if one.lower() not in known]

    def date(self, otherwise: datetime) -> datetime:
        try:
            found = email.utils.parsedate_to_datetime(self.header("date"))
        except ValueError:
            return otherwise
        return found if found.tzinfo else found.replace(tzinfo=UTC)

    def _body(self, kind: str) -> str:
        return "".join(part.text for part in self.parts if part.type == kind and not part.attached)


def leaves(parsed: Parsed) -> Iterator[Part]:
    """The parts that hold something, numbered in their order."""
    for number, part in enumerate(parsed.walk()):
        if part.is_multipart() and part.get_content_type() != "message/rfc822":
            continue
        name = readable(part.get_filename() or "")
        kind = part.get_content_type()
        content_id = readable(part.get("content-id", "")).strip("<> ")
        written = kind in ("text/plain", "text/html") and not name
        attached = part.get_content_disposition() == "attachment" or not (written or content_id)
        charset = part.get_content_charset("utf-8")
        yield Part(str(number), kind, content_of(part), charset, name, content_id, attached)


def content_of(part: Parsed) -> bytes:
    if part.is_multipart():  # message/rfc822: what was forwarded, whole
        return b"".join(inner.as_bytes() for inner in part.get_payload() if isinstance(inner, Parsed))
    decoded_payload = part.get_payload(decode=True)
    return decoded_payload if isinstance(decoded_payload, bytes) else b""


def unfolded(value: object) -> str:
    """A raw header value on one line, with the UTF-8 that SMTPUTF8 (RFC 6531) allows in it."""
    text = re.sub(r"\r?\n[ \t]*", " ", str(value)).strip()
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def decoded(text: str) -> str:
    """With its encoded words (RFC 2047) decoded."""
    try:
        return str(email.header.make_header(email.header.decode_header(text)))
    except (ValueError, LookupError):
        return text


def readable(value: object) -> str:
    return decoded(unfolded(value))


def text_of(html: str) -> str:
    try:
        return get_text(html, ParserConfig(display_links=True)).strip() if html.strip() else ""
    except ValueError:  # not HTML after all
        return html


def summarise(id: str, received: Received) -> tuple[Summary, str]:
    """The line of the list, and the text that a search looks through."""
    mail = Mail(received.raw)
    text = mail.text
    summary = Summary(
        id=id,
        message_id=mail.message_id,
        read=False,
        sender=sender(mail, received),
        to=mail.addresses("to"),
        cc=mail.addresses("cc"),
        bcc=mail.bcc(received.recipients),
        reply_to=mail.addresses("reply-to"),
        subject=mail.subject,
        created=received.at,
        size=len(received.raw),
        attachments=len(mail.attachments),
        snippet=" ".join(text.split())[:SNIPPET],
    )
    names = " ".join(part.file_name for part in mail.parts)
    return summary, " ".join((mail.subject, people(summary), names, text[:SEARCHED])).casefold()


def people(summary: Summary) -> str:
    everyone = [summary.sender] if summary.sender else []
    everyone += summary.to + summary.cc + summary.bcc + summary.reply_to
    return " ".join(f"{one.name} {one.address}" for one in everyone)


def sender(mail: Mail, received: Received) -> Address | None:
    found = mail.addresses("from")
    return found[0] if found else (Address("", received.sender) if received.sender else None)


def message(id: str, received: Received) -> Message:
    """The whole mail, for the one who opens it."""
    mail = Mail(received.raw)
    return Message(
        id=id,
        message_id=mail.message_id,
        sender=sender(mail, received),
        to=mail.addresses("to"),
        cc=mail.addresses("cc"),
        bcc=mail.bcc(received.recipients),
        reply_to=mail.addresses("reply-to"),
        return_path=received.sender,
        subject=mail.subject,
        list_unsubscribe=unsubscribe(mail),
        date=mail.date(received.at),
        text=mail.text,
        html=mail.html,
        size=len(received.raw),
        inline=[attachment(part) for part in mail.inline],
        attachments=[attachment(part) for part in mail.attachments],
    )


def unsubscribe(mail: Mail) -> Unsubscribe:
    header = mail.header("list-unsubscribe")
    links = re.findall(r"<\s*([^<>\s]+)\s*>", header)
    faults = "" if links or not header else "no link between < and >"
    return Unsubscribe(header, links, faults, mail.header("list-unsubscribe-post"))


def attachment(part: Part) -> Attachment:
    return Attachment(
        part_id=part.id,
        file_name=part.file_name or part.content_id or f"part-{part.id}",
        content_type=part.type,
        content_id=part.content_id,
        size=len(part.content),
        checksums={
            "MD5": hashlib.md5(part.content, usedforsecurity=False).hexdigest(),
            "SHA1": hashlib.sha1(part.content, usedforsecurity=False).hexdigest(),
            "SHA256": hashlib.sha256(part.content).hexdigest(),
        },
    )
