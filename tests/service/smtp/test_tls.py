"""No mail and no password on a line that is less safe than was asked for."""

import asyncio
import datetime
import ssl

import pytest
import trustme

from service.smtp import Backoff, Kind, Phase, SmtpError
from tests.faults.sink import Rule, Sink
from tests.service.smtp.conftest import Fence, MakeTransport, hasty, mail, server_context

# asyncio's own stream server complains when a handshake is refused
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


async def send(transport, fence: Fence):
    return await transport.send("from@example.org", ["to@example.org"], mail(), fence)


async def refused(transport, fence: Fence) -> SmtpError:
    with pytest.raises(SmtpError) as caught:
        await send(transport, fence)
    return caught.value


@pytest.mark.parametrize("mode", ["starttls", "tls"])
async def test_mail_goes_over_a_verified_connection_which_is_kept(
    transport_to: MakeTransport, fence: Fence, mode: str, server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with Sink(**{mode: server_tls}) as sink:
        transport = transport_to(sink, tls=mode, context=trusting)
        for _ in range(3):
            assert (await send(transport, fence)).code == 250
    assert len(sink.sessions) == 1
    assert sink.sessions[0].encrypted
    assert len(sink.mails) == 3


@pytest.mark.parametrize("mode", ["starttls", "tls"])
async def test_a_large_mail_goes_over_tls_whole(
    transport_to: MakeTransport, fence: Fence, mode: str, server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    data = b"Subject: big\r\n\r\n" + (b"x" * 900 + b"\r\n") * 5_000
    async with Sink(**{mode: server_tls}) as sink:
        transport = transport_to(sink, tls=mode, context=trusting)
        await transport.send("from@example.org", ["to@example.org"], data, fence)
    assert sink.mails[0].data == data


def expired(authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert("127.0.0.1", not_after=LONG_AGO)


def wrong_host(authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert("mail.example.org")


def self_signed(authority: trustme.CA) -> trustme.LeafCert:
    return trustme.CA().issue_cert("127.0.0.1")


@pytest.mark.parametrize("certificate", [expired, wrong_host, self_signed])
@pytest.mark.parametrize("mode", ["starttls", "tls"])
async def test_a_certificate_that_is_not_good_gets_no_mail(
    transport_to: MakeTransport, mode: str, certificate, authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    async with Sink(users={"u": "p"}, **{mode: server_context(certificate(authority))}) as sink:
        error = await refused(transport_to(sink, tls=mode, context=trusting, username="u", password="p"), Fence())
    assert error.phase is (Phase.STARTTLS if mode == "starttls" else Phase.CONNECT)
    assert (error.kind, error.reason, error.backoff) == (Kind.TEMPORARY, "tls_certificate", Backoff.OPERATOR)
    assert not [verb for session in sink.sessions for verb in session.verbs if verb in {"AUTH", "MAIL"}]


async def test_an_unknown_authority_is_refused_by_default_and_accepted_only_on_request(
    transport_to: MakeTransport, fence: Fence, server_tls: ssl.SSLContext
) -> None:
    async with Sink(starttls=server_tls) as sink:
        assert (await refused(transport_to(sink, tls="starttls"), fence)).reason == "tls_certificate"
        assert (await send(transport_to(sink, tls="starttls", verify=False), fence)).code == 250


async def test_a_stripped_starttls_is_not_a_downgrade(
    transport_to: MakeTransport, fence: Fence, trusting: ssl.SSLContext
) -> None:
    async with Sink(users={"u": "p"}) as sink:
        error = await refused(transport_to(sink, tls="starttls", context=trusting, username="u", password="p"), fence)
    assert (error.phase, error.reason, error.kind) == (Phase.STARTTLS, "starttls_missing", Kind.TEMPORARY)
    assert sink.sessions[0].verbs == ["EHLO"]


@pytest.mark.parametrize("said", ["454 4.7.0 not now", "501 5.5.4 no", "554 5.7.0 no"])
async def test_a_refused_starttls_is_not_a_downgrade(
    transport_to: MakeTransport, fence: Fence, said: str, server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with Sink({"starttls": [Rule(said, then="close")]}, starttls=server_tls) as sink:
        error = await refused(transport_to(sink, tls="starttls", context=trusting), fence)
    assert (error.phase, error.code, error.kind) == (Phase.STARTTLS, int(said[:3]), Kind.TEMPORARY)
    assert sink.sessions[0].verbs == ["EHLO", "STARTTLS"]


@pytest.mark.parametrize("then", ["hang", "close"])
async def test_a_server_that_falls_silent_at_starttls_gets_no_mail(
    transport_to: MakeTransport, fence: Fence, then, server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with Sink({"starttls": [Rule(then=then)]}, starttls=server_tls) as sink:
        error = await refused(transport_to(sink, tls="starttls", context=trusting, timeouts=hasty("starttls")), fence)
    assert (error.phase, error.kind) == (Phase.STARTTLS, Kind.TEMPORARY)
    assert error.reason == ("timeout" if then == "hang" else "connection_lost")


@pytest.mark.parametrize(
    "said",
    [b"220 go\r\n250 injected\r\n", b"220 go\r\nx", b"220-go\r\n220 on\r\n250-X\r\n"],
    ids=["reply", "byte", "multi"],
)
async def test_plaintext_behind_the_220_ends_the_connection(
    transport_to: MakeTransport, fence: Fence, said: bytes, server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with Sink({"starttls": [Rule(said)]}, starttls=server_tls) as sink:
        error = await refused(transport_to(sink, tls="starttls", context=trusting), fence)
        await asyncio.sleep(0.05)
    assert (error.phase, error.reason, error.kind) == (Phase.STARTTLS, "starttls_injection", Kind.TEMPORARY)
    assert sink.sessions[0].verbs == ["EHLO", "STARTTLS"]


async def test_what_the_server_offered_before_tls_is_forgotten(
    transport_to: MakeTransport, fence: Fence, server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    """RFC 3207, section 4.2: only the EHLO inside TLS counts."""
    before = Rule("250-sink\r\n250-SMTPUTF8\r\n250-PIPELINING\r\n250 STARTTLS", times=1)
    async with Sink({"ehlo": [before]}, starttls=server_tls, extensions=("SIZE 1000",)) as sink:
        transport = transport_to(sink, tls="starttls", context=trusting)
        await send(transport, fence)
        with pytest.raises(SmtpError, match="eai_unsupported"):
            await transport.send("from@example.org", ["ü@example.org"], mail(), fence)
    assert sink.sessions[0].verbs == ["EHLO", "STARTTLS", "EHLO", "MAIL", "RCPT", "DATA"]


async def test_tls_spoken_to_a_plain_server_and_plain_to_a_tls_server_fail_clearly(
    transport_to: MakeTransport, fence: Fence, server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with Sink() as plain, Sink(tls=server_tls) as encrypted:
        error = await refused(transport_to(plain, tls="tls", context=trusting), fence)
        assert (error.phase, error.kind) == (Phase.CONNECT, Kind.TEMPORARY)
        assert error.reason == "tls_failed"
        error = await refused(transport_to(encrypted, timeouts=hasty("banner")), fence)
        assert (error.phase, error.kind) == (Phase.BANNER, Kind.TEMPORARY)
