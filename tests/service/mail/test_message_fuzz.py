"""Whatever text comes in: it reads back exactly, or it is refused; never a header, a recipient or a part more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.mail.addresses import AddressRefused, parse_address
from service.mail.attachments import Attachment, safe_filename
from service.mail.characters import unsendable
from service.mail.message import Mail, MimeRefused, build, mail_faults
from service.mail.plain_text import text_of
from tests.service.mail.sample_emails import mail, read

CONTROLS = ["\r\n", "\n", "\r", "\0", "\t", "\u2028", "\x85", "\ud800", "\u202e"]
SYNTAX = ['"', "\\", "<e@e.fg>", ",", ";", "(", ")", ":", "--", "=_", ".", "Bcc: e@e.fg"]
WORDS = ["=?utf-8?q?", "=?", "?=", "=0A", "=?utf-8?b?QmNjOiBl?=", "=?utf-8?q?hi=0ABcc:_e@e?="]
OTHERS = [" ", "  ", "é", "日本", "🎓", "e\u0301", "x" * 90]
HOSTILE = st.sampled_from([*CONTROLS, *SYNTAX, *WORDS, *OTHERS])
text = st.text(max_size=80) | st.lists(HOSTILE | st.text(max_size=5), max_size=12).map("".join)


def built(one: Mail, *faulty: str) -> bytes | None:
    """The bytes, or None if the mail is refused for faults of those fields, and only of those."""
    if not (faults := mail_faults(one)):
        return build(one)
    assert {fault.where.split("/")[0] for fault in faults} <= set(faulty)
    with pytest.raises(MimeRefused):
        build(one)
    return None


@given(text)
def test_a_subject_reads_back_exactly_or_is_refused(subject: str) -> None:
    if (data := built(mail(subject=subject), "subject")) is None:
        return
    message = read(data)
    assert message.keys() == [
        "From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type", "Content-Transfer-Encoding",
    ]  # fmt: skip
    assert message["Subject"] == subject


@given(text)
def test_a_display_name_reads_back_exactly_or_is_refused(name: str) -> None:
    try:
        address = parse_address("a@example.org", name=name)
    except AddressRefused:
        return
    message = read(build(mail(to=[address], sender=address)))
    assert message.keys().count("To") == 1
    assert "Bcc" not in message
    (mailbox,) = message["To"].addresses
    assert mailbox.addr_spec == "a@example.org"
    # this reader puts a space between two encoded-words of a name; RFC 2047 6.2 has none there, and the gate sees none
    assert "".join(mailbox.display_name.split()) == "".join(address.name.split())


@given(st.text(max_size=20) | st.just("X-A") | text, text)
def test_a_custom_header_reads_back_exactly_or_is_refused(name: str, value: str) -> None:
    if (data := built(mail(headers={name: value}), "headers")) is None:
        return
    message = read(data)
    assert len(message.keys()) == 9
    assert message[name] == value


@given(text, st.binary(max_size=200))
def test_a_file_reads_back_exactly_under_a_safe_name(name: str, content: bytes) -> None:
    message = read(build(mail(attachments=[Attachment(name, content)])))
    (attachment,) = message.iter_attachments()
    assert attachment.get_filename() == safe_filename(name)
    assert attachment.get_content() == content
    assert len(list(message.walk())) == 3


@given(text, text)
def test_bodies_read_back_exactly_or_are_refused(plain: str, html: str) -> None:
    if (data := built(mail(text=plain, html=html), "text", "html")) is None:
        return
    assert b"\r" not in data.replace(b"\r\n", b"")
    assert b"\n" not in data.replace(b"\r\n", b"")
    parts = list(read(data).iter_parts())
    assert [part.get_content_type() for part in parts] == ["text/plain", "text/html"]
    for part, body in zip(parts, (plain, html), strict=True):
        meant = body.replace("\r\n", "\n").replace("\r", "\n")
        got = part.get_payload(decode=True).decode().replace("\r\n", "\n")
        assert got == (meant if meant.endswith("\n") else meant + "\n")


MARKUP = [
    "<p>",
    "</p>",
    "<a href='x'>",
    "<table>",
    "<tr>",
    "<td colspan=9>",
    "<ul>",
    "<ol start=x>",
    "<li>",
    "<pre>",
    "<br>",
    "<img alt=x>",
]
ODD = [
    "<?xml version='1.0' encoding='utf-8'?>",
    "<?XML encoding='x'?>",
    "<!--",
    "-->",
    "<![CDATA[",
    "&#0;",
    "&#xD800;",
    "&",
    "<",
    ">",
    "<svg>",
]
STYLED = [
    "<p style='display:none'>",
    "<p style='margin:1em;padding:x;white-space:pre'>",
    "<b style='x:y;;:'>",
    "<title>",
    "<style>",
]


@given(st.lists(st.sampled_from([*MARKUP, *ODD, *STYLED]) | st.text(max_size=8), max_size=15).map("".join))
def test_any_html_has_a_text(html: str) -> None:
    text = text_of(html)
    assert text.endswith("\n")
    assert unsendable(text) is None
