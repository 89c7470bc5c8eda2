"""What is built says exactly what was meant, and is built the same each time."""

from datetime import UTC, datetime

import pytest

from service.mail.addresses import Address, parse_address
from service.mail.attachments import Attachment
from service.mail.message import MimeRefused, build
from tests.service.mail.sample_emails import ADA, BOB, PLAIN, SENDER, mail, read

HTML = '<p style="color:red">Grüße aus Zürich</p>\n' * 40


def test_a_plain_mail_is_exactly_these_bytes() -> None:
    assert build(PLAIN) == (
        b"From: Callboard <no-reply@mail.example.org>\r\n"
        b"To: Ada Lovelace <ada@example.org>\r\n"
        b"Subject: Hello\r\n"
        b"Date: Fri, 02 Jan 2026 03:04:05 +0000\r\n"
        b"Message-ID: <0193a6c0-0000-7000-8000-000000000001@mail.example.org>\r\n"
        b"MIME-Version: 1.0\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Transfer-Encoding: 7bit\r\n"
        b"\r\n"
        b"Hello Ada\r\n"
    )


def test_html_comes_after_text_and_both_read_back_whole() -> None:
    message = read(build(mail(html=HTML, text="Grüße\n")))
    assert message.get_content_type() == "multipart/alternative"
    plain, html = message.iter_parts()
    assert (plain.get_content_type(), plain.get_content()) == ("text/plain", "Grüße\r\n")
    assert (html.get_content_type(), html.get_content()) == ("text/html", HTML.replace("\n", "\r\n"))


def test_files_and_shown_images_stand_where_readers_look() -> None:
    files = [
        Attachment("../Übersicht.pdf", b"%PDF\r\n\0\xff" * 5000, "application/pdf"),
        Attachment("logo.png", b"\x89PNG", "image/png", content_id="logo"),
        Attachment('say "hi"; now.txt', b"", "text/plain"),
    ]
    message = read(build(mail(html='<img src="cid:logo">', attachments=files)))
    assert message.get_content_type() == "multipart/mixed"
    body, pdf, note = message.iter_parts()
    assert [part.get_content_type() for part in body.iter_parts()] == ["text/plain", "multipart/related"]
    html, logo = list(body.iter_parts())[1].iter_parts()
    assert (html.get_content_type(), logo["Content-ID"], logo.get_content_disposition()) == (
        "text/html",
        "<logo>",
        "inline",
    )
    assert (pdf.get_filename(), pdf.get_content_type(), pdf.get_content()) == (
        "Übersicht.pdf",
        "application/pdf",
        files[0].content,
    )
    assert (note.get_filename(), note.get_content_disposition()) == ("say _hi_; now.txt", "attachment")


def test_the_same_mail_gives_the_same_bytes() -> None:
    several = mail(html=HTML, attachments=[Attachment("a", b"b")])
    assert build(several) == build(several)


def test_a_boundary_cannot_be_planted_in_a_body() -> None:
    boundary = read(build(mail(html="<p>x</p>"))).get_boundary()
    planted = f"text\r\n--{boundary}\r\nContent-Type: text/html\r\n\r\nevil\r\n--{boundary}--\r\n"
    plain, html = read(build(mail(html="<p>x</p>", text=planted))).iter_parts()
    assert plain.get_content() == planted
    assert html.get_content() == "<p>x</p>\r\n"


@pytest.mark.parametrize(
    "body",
    [
        "\n.\r\nMAIL FROM:<e@e.fg>",
        "a\r.\rb",
        "\r\n.\r",
        "a\rb\nc\r\nd",
        "\n\n",
        "",
        "\v\f\x85\u2028x",
        "x" * 5000,
        "é" * 5000,
        "a \t\n b ",
    ],
)
def test_every_line_of_a_body_ends_in_crlf_and_none_is_too_long(body: str) -> None:
    data = build(mail(text=body, html=body))
    assert b"\r" not in data.replace(b"\r\n", b"")
    assert b"\n" not in data.replace(b"\r\n", b"")
    assert max(map(len, data.split(b"\r\n"))) <= 998
    plain, _ = read(data).iter_parts()
    expected = body.replace("\r\n", "\n").replace("\r", "\n")
    assert plain.get_payload(decode=True).decode().replace("\r\n", "\n") == (
        expected if expected.endswith("\n") else expected + "\n"
    )


def test_many_recipients_are_folded_and_all_there() -> None:
    people = [parse_address(f"user-{n}@example.org", name=f"Person, {n} Ünal" if n % 2 else "") for n in range(60)]
    data = build(mail(to=people[:30], cc=people[30:], reply_to=[ADA, BOB]))
    message = read(data)
    assert max(map(len, data.split(b"\r\n"))) <= 78
    assert [a.addr_spec for a in message["To"].addresses] == [p.addr_spec for p in people[:30]]
    assert [a.display_name for a in message["Cc"].addresses] == [p.name for p in people[30:]]
    assert [a.addr_spec for a in message["Reply-To"].addresses] == ["ada@example.org", "bob@example.net"]


def test_who_is_only_in_the_envelope_is_not_in_the_headers() -> None:
    message = read(build(mail(to=[])))
    assert message["To"] == "undisclosed-recipients:;"
    assert "Bcc" not in message
    assert "To" not in read(build(mail(to=[], cc=[BOB])))


def test_an_international_address_stands_as_utf8_and_says_so() -> None:
    dmitri = parse_address("Дмитрий <дмитрий@почта.рф>")
    one = mail(to=[dmitri])
    assert one.smtputf8
    assert not PLAIN.smtputf8
    assert f"<{dmitri.addr_spec}>".encode() in build(one)


def test_a_long_address_for_unsubscribing_is_not_broken() -> None:
    value = f"<https://example.org/u/{'t' * 600}>, <mailto:u@example.org>"
    assert read(build(mail(headers={"List-Unsubscribe": value})))["List-Unsubscribe"] == value


def test_a_display_name_that_plays_an_address_is_one_mailbox() -> None:
    name = 'x" <evil@e.fg>, "y'
    (address,) = read(build(mail(to=[parse_address("a@example.org", name=name)])))["To"].addresses
    assert (address.display_name, address.addr_spec) == (name, "a@example.org")


def test_every_fault_is_named_at_once() -> None:
    broken = mail(
        subject="a\nBcc: e@e.fg",
        headers={"Bcc": "e@e.fg", "X-A": "b\rc"},
        attachments=[Attachment("a", b"", "text/html\r\nX: y")],
        html="\0",
        text="\ud800",
        message_id="<a@b>\r\nBcc: e@e.fg",
        date=datetime(2026, 1, 1),  # noqa: DTZ001 - the fault
    )
    with pytest.raises(MimeRefused) as refused:
        build(broken)
    assert [fault.where for fault in refused.value.faults] == [
        "subject", "headers/Bcc", "headers/X-A", "attachments/0", "html", "text", "message_id", "date",
    ]  # fmt: skip


def test_a_mail_without_a_body_is_refused() -> None:
    with pytest.raises(MimeRefused, match="give one of them"):
        build(mail(text=None))


INJECTION = "=?utf-8?q?hi=0ABcc:_e@e?="


def test_an_encoded_injection_in_a_name_is_caught_even_past_the_parser() -> None:
    """An Address made by hand skips the rules for input: it is written so that it decodes to itself, and only once."""
    data = build(
        mail(
            to=[Address(INJECTION, "a", "example.org", "a@example.org")],
            sender=Address(INJECTION, "s", "example.org", "s@example.org"),
        )
    )
    assert b"Bcc" not in data
    message = read(data)
    assert message.keys().count("Bcc") == 0
    assert message["To"].addresses[0].display_name == INJECTION
    assert data.count(b"=?utf-8?q?") == 0


def test_an_encoded_injection_in_a_file_name_stays_a_name() -> None:
    message = read(build(mail(attachments=[Attachment("=?utf-8?q?a=0ABcc:_e@e?=.txt", b"x")])))
    assert "Bcc" not in message
    assert next(iter(message.iter_attachments())).get_filename() == "=_utf-8_q_a=0ABcc__e@e_=.txt"


@pytest.mark.parametrize(
    "address",
    [
        Address("", "a", "b.cd", "a@b.cd, evil@e.fg"),
        Address("", "a", "b.cd", "a@b.cd\r\nBcc: e@e.fg"),
        Address("a\r\nBcc: e@e.fg", "a", "b.cd", "a@b.cd"),
        Address("a\nBcc: e@e.fg\n\nbody", "a", "b.cd", "a@b.cd"),
        Address("", "a", "b.cd", "a@b.cd> (x"),
        Address("", "a", "b.cd", "дм@b.cd", smtputf8=False),
    ],
)
def test_the_gate_refuses_bytes_that_say_more_than_was_meant(address: Address) -> None:
    for field in ({"to": [address]}, {"cc": [BOB, address]}, {"reply_to": [address]}, {"sender": address}):
        with pytest.raises(MimeRefused) as refused:
            build(mail(**field))
        assert {fault.code for fault in refused.value.faults} == {"mismatch"}


def test_dates_are_written_in_utc() -> None:
    assert (
        read(build(mail(sender=SENDER, date=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))))["Date"]
        == "Fri, 02 Jan 2026 03:04:05 +0000"
    )
