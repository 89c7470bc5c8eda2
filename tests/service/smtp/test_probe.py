"""The probe says how far one gets, how long each step takes, and how to mend what fails; another server agrees."""

import asyncio
import ssl

import pytest
from aiosmtpd.smtp import SMTP

from service.smtp import SmtpError, Transport
from tests.faults.sink import Rule, Sink
from tests.service.smtp.conftest import PATIENT, Fence, MakeTransport, hasty, mail, message_id

USERS = {"u": "p"}


async def test_every_step_is_taken_and_no_mail_is_sent(
    transport_to: MakeTransport, server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with Sink(users=USERS, starttls=server_tls) as sink:
        steps = await transport_to(sink, tls="starttls", context=trusting, username="u", password="p").probe("me@x.org")
    assert [step.name for step in steps] == [
        "dns", "connect", "banner", "ehlo", "starttls", "ehlo", "auth", "mail",
    ]  # fmt: skip
    assert all(step.ok and step.seconds >= 0 and not step.mend for step in steps)
    assert sink.sessions[0].verbs[-3:] == ["MAIL", "RSET", "QUIT"]
    assert sink.mails == []


@pytest.mark.parametrize(
    ("rules", "options", "last", "reason"),
    [
        ({"banner": [Rule("554 no")]}, {}, "banner", "refused"),
        ({}, {"tls": "starttls"}, "starttls", "starttls_missing"),
        ({}, {"username": "u", "password": "wrong"}, "auth", "auth_failed"),
        ({"mail": [Rule("553 5.1.8 who?")]}, {}, "mail", "sender_refused"),
        ({"ehlo": [Rule(then="hang")]}, {"timeouts": hasty("ehlo")}, "ehlo", "timeout"),
        ({"banner": [Rule("hello")]}, {}, "banner", "protocol_error"),
    ],
)
async def test_the_first_step_that_fails_is_the_last_and_says_how_to_mend_it(
    transport_to: MakeTransport, rules, options, last: str, reason: str
) -> None:
    async with Sink(rules, users=USERS) as sink:
        steps = await transport_to(sink, **options).probe("me@example.org")
    assert (steps[-1].name, steps[-1].ok) == (last, False)
    assert all(step.ok for step in steps[:-1])
    assert steps[-1].detail.startswith(f"{reason}: ")
    assert len(steps[-1].mend) > 20


class Keeper:
    """An aiosmtpd handler that keeps envelopes."""

    def __init__(self) -> None:
        self.envelopes: list = []

    async def handle_DATA(self, server, session, envelope) -> str:
        self.envelopes.append(envelope)
        return "250 OK"


async def test_another_server_understands_every_word(fence: Fence) -> None:
    keeper = Keeper()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(keeper, enable_SMTPUTF8=True, loop=loop), "127.0.0.1", 0)
    transport = Transport("127.0.0.1", server.sockets[0].getsockname()[1], timeouts=PATIENT)
    for number in range(3):
        to = ["a@example.org", "ü@example.org"]
        await transport.send("from@example.org", to, mail(number, b"a\n.\n..b\r\n.c"), fence)
    with pytest.raises(SmtpError, match="message_too_large"):
        await transport.send("from@example.org", ["a@example.org"], b"x" * 40_000_000, fence)
    await transport.close()
    server.close()
    assert fence.calls == 3
    assert [envelope.rcpt_tos for envelope in keeper.envelopes] == [["a@example.org", "ü@example.org"]] * 3
    assert keeper.envelopes[2].content == mail(2, b"a\r\n.\r\n..b\r\n.c\r\n")
    assert message_id(2).encode() in keeper.envelopes[2].content
