"""The gate finds what a serialiser must never do: each tampering with good bytes is named."""

import re
from email.header import decode_header, make_header

import pytest

from service.mail.attachments import Attachment
from service.mail.header_encoding import parameter, text_field
from service.mail.message import build, intent_of
from service.mail.verify import differences
from tests.service.mail.sample_emails import ADA, BOB, mail

MAIL = mail(
    to=[ADA, BOB],
    subject="Grüße",
    html="<p>x</p>",
    headers={"X-Campaign": "spring"},
    attachments=[Attachment("a.txt", b"content", "text/plain")],
)
GOOD = build(MAIL)


def test_good_bytes_pass() -> None:
    assert differences(GOOD, intent_of(MAIL)) == []


@pytest.mark.parametrize(
    ("pattern", "replacement", "reason"),
    [
        (rb"\r\nSubject", rb"\r\nBcc: e@e.fg\r\nSubject", "the headers are"),
        (rb"\r\nX-Campaign: spring", rb"", "the headers are"),
        (rb"\r\nMIME-Version", rb"\r\nX-Campaign: spring\r\nMIME-Version", "the headers are"),
        (rb"Subject: ", rb"Subject: =?utf-8?q?hi=0ABcc:_e@e?= ", "Subject reads back"),
        (rb"X-Campaign: spring", rb"X-Campaign: summer", "X-Campaign reads back"),
        (rb"Message-ID: <", rb"Message-ID: <x", "Message-ID reads back"),
        (rb"bob@example.net", rb"bob@example.net, e@e.fg", "To reads back"),
        (rb", bob@example.net", rb"", "To reads back"),
        (rb"<ada@", rb"<eva@", "To reads back"),
        (rb"From: Callboard", rb"From: Billboard", "From reads back"),
        (rb"multipart/mixed", rb"multipart/digest", "body is multipart/digest"),
        (rb"multipart/alternative", rb"multipart/mixed", "body/0 is multipart/mixed"),
        (rb"\r\n(--[^-]\S+)--\r\n$", rb"\r\n\1\r\n\r\nmore\r\n\1--\r\n", "body is not 2 parts"),
        (rb"\r\n$", rb"\r\nepilogue\r\n", "body is not 2 parts"),
        (rb"\r\n\r\n--", rb"\r\n\r\npreamble\r\n--", "body is not 2 parts"),
        (rb"filename=\"a.txt\"", rb'filename="a.exe"', "another file name"),
        (rb"Content-Disposition", rb"X-More: x\r\nContent-Disposition", "has the headers"),
        (rb"text/html", rb"text/xml", "body/0/1 is text/xml"),
        (rb"Hello Ada", rb"Hello Eva", "body/0/0 has other content"),
        (rb"Hello Ada", b"Hello Ada" + b"a" * 990, "longer than 998"),
        (rb"Hello Ada", rb"Hello Ada\n", "not ended by CR LF"),
        (rb"Hello Ada", rb"Hello Ada\r.", "not ended by CR LF"),
        (rb"Hello Ada", rb"Hello\0Ada", "NUL"),
        (rb"Callboard", b"Callb\xc3\xb6rd", "not ASCII"),
        (rb"\r\n$", rb"", "not ended"),
    ],
)
def test_a_tampering_is_named(pattern: bytes, replacement: bytes, reason: str) -> None:
    tampered = re.sub(pattern, replacement, GOOD, count=1)
    assert tampered != GOOD
    assert reason in "; ".join(differences(tampered, intent_of(MAIL)))


def test_what_looks_like_an_encoded_word_is_written_to_mean_itself() -> None:
    injection = "=?utf-8?q?hi=0ABcc:_e@e?="
    field = text_field("Subject", injection)
    assert "=?utf-8?q?" not in field
    assert str(make_header(decode_header(field.removeprefix("Subject: ")))) == injection
    assert "=?" not in parameter("filename", injection)
