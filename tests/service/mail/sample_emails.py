"""Mails for tests, and a second opinion on their bytes."""

from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import msgspec

from service.mail.addresses import parse_address
from service.mail.message import Mail

ADA = parse_address("Ada Lovelace <ada@example.org>")
BOB = parse_address("bob@example.net")
SENDER = parse_address("Callboard <no-reply@mail.example.org>")

PLAIN = Mail(
    message_id="<0193a6c0-0000-7000-8000-000000000001@mail.example.org>",
    date=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    sender=SENDER,
    to=[ADA],
    subject="Hello",
    text="Hello Ada\n",
)


def mail(**changes: Any) -> Mail:
    """PLAIN with some fields changed."""
    return msgspec.structs.replace(PLAIN, **changes)


def read(data: bytes) -> EmailMessage:
    """Parse with the standard library's modern policy, which the program itself does not use."""
    message = message_from_bytes(data, policy=policy.default)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    return message
