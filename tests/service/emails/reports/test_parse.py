"""Reports are read as servers write them; what is none is told apart, whatever it looks like."""

import contextlib
import random

import pytest

from service.emails.reports.report import is_hard
from service.emails.reports.rfc3464 import MAX_RAW, NotAReport, read
from tests.service.emails.reports.samples import arf, dsn, qmail

ID = "0199f6d6-c3a1-712f-a0d5-f1f0a9c1e7b2"
MESSAGE_ID = f"<{ID}@academy.example>"


def test_a_delivery_report_tells_who_what_and_which_mail() -> None:
    (report,) = read(dsn(MESSAGE_ID, recipient="Ada@example.org"))
    assert (report.action, report.recipient, report.status) == ("bounced", "Ada@example.org", "5.1.1")
    assert report.diagnostic == "550 5.1.1 <Ada@example.org>: the server's words"
    assert report.names == (MESSAGE_ID,)
    assert report.is_hard
    assert report.source == "dsn"


def test_a_mail_is_named_by_envelope_id_by_the_address_of_the_bounce_and_by_its_message_id() -> None:
    hex_id = ID.replace("-", "")
    (report,) = read(dsn(MESSAGE_ID, envelope=f"em+5F{hex_id}", to=f"bounces+{hex_id}@academy.example"))
    assert report.names == (f"em_{hex_id}", hex_id, MESSAGE_ID)


@pytest.mark.parametrize(
    ("action", "status", "expected", "hard"),
    [
        ("failed", "5.1.1", "bounced", True),
        ("failed", "5.2.1", "bounced", True),
        ("failed", "5.2.2", "bounced", False),
        ("failed", "5.7.1", "bounced", False),
        ("failed", "4.4.7", "bounced", False),
        ("delayed", "4.2.0", "delayed", False),
        ("delivered", "2.0.0", "delivered", False),
    ],
)
def test_actions_and_statuses(action: str, status: str, expected: str, hard: bool) -> None:
    (report,) = read(dsn(MESSAGE_ID, action=action, status=status))
    assert (report.action, report.is_hard) == (expected, hard)


def test_a_failure_without_a_status_is_the_addresss_fault() -> None:
    assert is_hard("")


def test_the_same_report_on_another_way_is_the_same() -> None:
    first, second = dsn(MESSAGE_ID), dsn(MESSAGE_ID, received="Tue, 13 Jan 2026 00:00:00 +0000")
    assert first != second
    assert read(first)[0].key == read(second)[0].key
    assert read(first)[0].key != read(dsn(MESSAGE_ID, action="delayed", status="4.2.0"))[0].key
    assert read(first)[0].key != read(dsn(MESSAGE_ID, recipient="bob@example.org"))[0].key


def test_an_abuse_report_is_a_complaint_even_where_it_hides_the_recipient() -> None:
    (hidden,), (shown,) = read(arf(MESSAGE_ID)), read(arf(MESSAGE_ID, recipient="ada@example.org"))
    assert (hidden.action, hidden.recipient, hidden.names) == ("complained", None, (MESSAGE_ID,))
    assert shown.recipient == "ada@example.org"
    with pytest.raises(NotAReport):
        read(arf(MESSAGE_ID, kind="not-spam"))


def test_a_bounce_that_keeps_to_no_standard_is_read_from_what_it_quotes() -> None:
    (report,) = read(qmail(MESSAGE_ID))
    assert (report.action, report.recipient, report.names) == ("bounced", "ada@example.org", (MESSAGE_ID,))
    assert report.source == "flufl.bounce"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0" * 1000,
        b"Subject: out of office\r\n\r\nI am away.\r\n",
        b"Content-Type: message/delivery-status\r\n\r\nnothing",
        b"Content-Type: message/feedback-report\r\n\r\n",
        b"Content-Type: multipart/report; boundary=x\r\n\r\n" + b"--x\r\n" * 5000,
        b"Content-Type: message/rfc822\r\n\r\n" * 3000,
        b"Content-Type: multipart/mixed; boundary*=utf-99''%ff\r\n\r\n--x\r\n",
        b"x" * (MAX_RAW + 1),
    ],
)
def test_what_is_no_report_is_refused(raw: bytes) -> None:
    with pytest.raises(NotAReport):
        read(raw)


def test_a_report_with_thousands_of_recipients_is_read_to_a_bound() -> None:
    block = b"Final-Recipient: rfc822; user@example.org\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n"
    raw = dsn(MESSAGE_ID).replace(b"Final-Recipient", block * 150 + b"Final-Recipient", 1)
    assert len(read(raw)) == 100


def test_damaged_reports_never_raise_anything_else() -> None:
    chance = random.Random(7)
    for whole in (dsn(MESSAGE_ID), arf(MESSAGE_ID), qmail(MESSAGE_ID)):
        for _ in range(150):
            raw = bytearray(whole)
            for _ in range(chance.randrange(1, 30)):
                at = chance.randrange(len(raw))
                raw[at : at + chance.randrange(4)] = chance.randbytes(chance.randrange(4))
            with contextlib.suppress(NotAReport):
                assert read(bytes(raw))


@pytest.mark.parametrize(
    "header",
    [
        b";" * 1_000_000,
        b'; a="\\";' * 100_000,
        b"".join(b";\r\n a%d*0=x" % number for number in range(30_000)),
    ],
    ids=["empty", "quoted", "continued"],
)
def test_a_header_without_end_is_read_as_far_as_is_sensible(header: bytes) -> None:
    with pytest.raises(NotAReport):
        read(b"From: mx@example.org\r\nContent-Type: multipart/report" + header + b"\r\n\r\nno report")


def test_a_mail_of_nothing_but_lines_is_refused_before_it_is_read() -> None:
    with pytest.raises(NotAReport, match="1,000,004 lines"):
        read(b"From: mx@example.org\r\nTo: b@example.org\r\nSubject: failed\r\n\r\n" + b"\n" * 1_000_000)
