"""No address can change a command; what a mail needs of a server is asked for, or the mail is refused."""

import pytest

from service.smtp import Kind, Phase, SmtpError
from service.smtp.body import prepare
from service.smtp.envelope import commands, envelope
from tests.faults.sink import Sink
from tests.service.smtp.conftest import Fence, MakeTransport, mail

HOSTILE = [
    "d@e.f> NOTIFY=SUCCESS",
    "d@e.f>\r\nRCPT TO:<x@example.org",
    "d@e.f\r\n",
    "d@e.f\n",
    "d\r\n@e.f",
    "d @e.f",
    "<d@e.f>",
    "d@e.f,x@y.z",
    "d@e.f x@y.z",
    "d@e.f\x00",
    "@e.f",
    "d@",
    "d",
    "",
    "d@e..f",
    "d@-e.f",
    "d@e.f-",
    "d@e f",
    "x" * 65 + "@e.f",
    "d@" + "x" * 256,
    '"a\r\nb"@e.f',
    '"a"b"@e.f',
    "d@[127.0.0.1]>",
    "d\ud800@e.f",
]


@pytest.mark.parametrize("address", HOSTILE)
async def test_a_hostile_recipient_is_refused_before_a_connection_is_opened(
    transport_to: MakeTransport, fence: Fence, address: str
) -> None:
    async with Sink() as sink:
        with pytest.raises(SmtpError) as caught:
            await transport_to(sink).send("from@example.org", ["ok@example.org", address], mail(), fence)
    assert (caught.value.phase, caught.value.kind, caught.value.reason) == (
        Phase.RCPT,
        Kind.PERMANENT,
        "invalid_address",
    )
    assert sink.sessions == []


@pytest.mark.parametrize("address", [one for one in HOSTILE if one])
def test_a_hostile_sender_is_refused(address: str) -> None:
    with pytest.raises(SmtpError) as caught:
        envelope(address, ["ok@example.org"])
    assert (caught.value.phase, caught.value.reason) == (Phase.MAIL, "invalid_address")


def test_every_faulty_recipient_is_named() -> None:
    with pytest.raises(SmtpError, match=r"'a b@e.f', 'c d@e.f'"):
        envelope("", ["a b@e.f", "ok@e.f", "c d@e.f"])


def test_a_mail_to_nobody_is_refused() -> None:
    with pytest.raises(SmtpError, match="at least one recipient"):
        envelope("from@example.org", [])


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("a@example.org", "a@example.org"),
        ("a+tag.b_c@sub.example.org", "a+tag.b_c@sub.example.org"),
        ("-oQ/tmp@b.c", "-oQ/tmp@b.c"),
        ('"a b"@example.org', '"a b"@example.org'),
        (r'"a\"b"@example.org', r'"a\"b"@example.org'),
        ("a@[192.0.2.1]", "a@[192.0.2.1]"),
        ("a@[IPv6:2001:db8::1]", "a@[IPv6:2001:db8::1]"),
        ("a@bücher.example", "a@xn--bcher-kva.example"),
        ("üser@example.org", "üser@example.org"),
        ("a@localhost", "a@localhost"),
    ],
)
def test_good_addresses_pass_with_their_domain_in_ascii(address: str, path: str) -> None:
    assert envelope("", [address]).paths == (path,)


def test_the_null_sender_is_the_empty_path() -> None:
    first, _ = commands(envelope("", ["to@example.org"]), prepare(b"x"), {})
    assert first == b"MAIL FROM:<>"


ALL = {"size": "1000000", "8bitmime": "", "smtputf8": "", "pipelining": ""}


@pytest.mark.parametrize(
    ("recipient", "data", "words"),
    [
        ("to@example.org", b"Subject: x\r\n\r\nx\r\n", "SIZE=17"),
        ("to@example.org", b"Subject: x\r\n\r\n\xc3\xa9\r\n", "SIZE=18 BODY=8BITMIME"),
        ("to@example.org", b"Subject: \xc3\xa9\r\n\r\nx\r\n", "SIZE=18 BODY=8BITMIME SMTPUTF8"),
        ("\u00fc@example.org", b"Subject: x\r\n\r\nx\r\n", "SIZE=17 SMTPUTF8"),
    ],
)
def test_a_mail_asks_for_what_it_needs(recipient: str, data: bytes, words: str) -> None:
    first, _ = commands(envelope("from@example.org", [recipient]), prepare(data), ALL)
    assert first.decode() == f"MAIL FROM:<from@example.org> {words}"


@pytest.mark.parametrize(
    ("recipient", "data", "reason"),
    [
        ("\u00fc@example.org", b"x", "eai_unsupported"),
        ("to@example.org", b"Subject: x\r\n\r\n\xff", "eight_bit_unsupported"),
    ],
)
async def test_a_mail_the_server_cannot_take_fails_for_good(
    transport_to: MakeTransport, fence: Fence, recipient: str, data: bytes, reason: str
) -> None:
    async with Sink(extensions=("PIPELINING",)) as sink:
        with pytest.raises(SmtpError) as caught:
            await transport_to(sink).send("from@example.org", [recipient], data, fence)
    assert (caught.value.kind, caught.value.reason) == (Kind.PERMANENT, reason)
    assert sink.sessions[0].verbs == ["EHLO"]


async def test_an_internationalised_address_reaches_a_server_that_can(
    transport_to: MakeTransport, fence: Fence
) -> None:
    async with Sink() as sink:
        await transport_to(sink).send("from@example.org", ["üser@bücher.example"], mail(), fence)
    assert sink.mails[0].recipients == ["üser@xn--bcher-kva.example"]
