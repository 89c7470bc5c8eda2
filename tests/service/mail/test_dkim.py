"""Signatures, read by another implementation."""

import re

import dkim as other
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from service.domains import keys
from service.mail import dkim
from service.mail.addresses import parse_address
from service.mail.message import build
from tests.service.mail.sample_emails import mail

ONE_CLICK = {"List-Unsubscribe": "<https://a.example/u/x>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}
PAIR = keys.make()
KEY = keys.read(PAIR.private)


def verified(data: bytes) -> bool:
    """What a receiver says who asks DNS for the key."""
    record = f"v=DKIM1; k=rsa; p={PAIR.public}".encode()
    asked: list[bytes] = []

    def answer(name: bytes, timeout: int = 5) -> bytes:
        asked.append(name)
        return record

    good: bool = other.verify(data, dnsfunc=answer)
    assert asked == [b"sel._domainkey.mail.example.org."]
    return good


def signed(data: bytes) -> bytes:
    return dkim.sign(data, "mail.example.org", "sel", KEY)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"text": "  blanks \t here  \n\n\n", "html": "<p>Grüße</p>", "subject": "Zoë's " + "long subject " * 20},
        {"text": "\n"},
        {
            "headers": {
                "List-Unsubscribe": "<https://a.example/u/x>",
                "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
            }
        },
        {"to": [parse_address(f"Person {n} <p{n}@example.org>") for n in range(40)]},
    ],
)
def test_a_receiver_believes_the_signature(changes: dict[str, object]) -> None:
    data = signed(build(mail(**changes)))
    assert verified(data)
    assert max(map(len, data.split(b"\r\n"))) <= 998
    assert signed(build(mail(**changes))) == data, "the same bytes every time"


def test_what_one_click_needs_is_signed() -> None:
    data = signed(build(mail(headers=ONE_CLICK)))
    names = re.sub(rb"\s", b"", re.search(rb"h=([^;]+);", data)[1]).split(b":")  # type: ignore[index]
    assert {b"list-unsubscribe", b"list-unsubscribe-post"} <= set(names)
    assert names.count(b"from") == 2


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Subject: Hello", b"Subject: Buy"),
        (b"Hello Ada", b"Hello Bob"),
        (b"Subject: Hello", b"Subject: Hello\r\nFrom: <evil@example.org>"),
        (b"Subject: Hello", b"Subject: Hello\r\nCc: <evil@example.org>"),
        (b"Subject: Hello", b"Subject: Hello\r\nReply-To: <evil@example.org>"),
    ],
)
def test_a_changed_mail_is_not_believed(old: bytes, new: bytes) -> None:
    data = signed(build(mail()))
    assert old in data
    assert not verified(data.replace(old, new, 1))


def test_what_may_be_changed_on_the_way_is_believed_still() -> None:
    data = signed(build(mail()))
    assert verified(b"Received: by somebody\r\n" + data.replace(b"Subject: Hello", b"subject:   Hello") + b"\r\n\r\n")


@settings(max_examples=60, deadline=None)
@given(
    text=some.text(alphabet=" \t\nab=.é", max_size=120), subject=some.text(alphabet="ab é:;=", min_size=1, max_size=150)
)
def test_any_text_can_be_signed(text: str, subject: str) -> None:
    if not subject.strip():
        subject = "x"
    assert verified(signed(build(mail(text=text, subject=subject.strip()))))
