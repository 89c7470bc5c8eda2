"""Whatever a server does in whatever phase, the error says where it happened and whether the mail may be there."""

import asyncio
import socket

import pytest

from service.smtp import Backoff, Kind, Phase, SmtpError
from service.smtp.phases import Timeouts
from tests.faults.proxy import Proxy
from tests.faults.sink import Rule, Sink
from tests.service.smtp.conftest import LINE, PATIENT, Fence, MakeTransport, hasty, mail, message_id

LONG = LINE * 32_000  # more than all the buffers on the way hold
BEFORE = ["banner", "ehlo", "mail", "rcpt", "data"]
BARE = ("SIZE 40000000", "8BITMIME")  # without PIPELINING every command waits for its reply


async def refused(transport, fence, recipients=("to@example.org",), data=None) -> SmtpError:
    with pytest.raises(SmtpError) as caught:
        await transport.send("from@example.org", list(recipients), data or mail(), fence)
    return caught.value


@pytest.mark.parametrize("extensions", [None, BARE], ids=["pipelined", "in-turn"])
@pytest.mark.parametrize("phase", BEFORE)
@pytest.mark.parametrize("code", [421, 451, 550, 554])
async def test_a_refusal_before_the_dot_is_definite_and_no_fence_is_taken(
    transport_to: MakeTransport, fence: Fence, phase: str, code: int, extensions
) -> None:
    options = {} if extensions is None else {"extensions": extensions}
    async with Sink({phase: [Rule(f"{code} 5.0.0 no" if code > 499 else f"{code} 4.0.0 not now")]}, **options) as sink:
        error = await refused(transport_to(sink), fence)
    assert (error.phase, error.code) == (Phase(phase), code)
    permanent = code >= 500 and not Phase(phase).about_us
    assert error.kind is (Kind.PERMANENT if permanent else Kind.TEMPORARY)
    assert fence.calls == 0
    assert sink.mails == []


@pytest.mark.parametrize("code", [421, 451, 452, 550, 552, 554])
async def test_a_refusal_of_the_dot_is_definite(transport_to: MakeTransport, fence: Fence, code: int) -> None:
    async with Sink({"dot": [Rule(f"{code} no")]}) as sink:
        error = await refused(transport_to(sink), fence)
    assert (error.phase, error.code) == (Phase.DOT, code)
    assert error.kind is (Kind.PERMANENT if code >= 500 else Kind.TEMPORARY)
    assert fence.calls == 1
    assert sink.mails == []


@pytest.mark.parametrize("extensions", [None, BARE], ids=["pipelined", "in-turn"])
@pytest.mark.parametrize("phase", [*BEFORE, "dot"])
@pytest.mark.parametrize("then", ["hang", "close"])
async def test_silence_and_hanging_up_are_ambiguous_after_the_dot_only(
    transport_to: MakeTransport, fence: Fence, phase: str, then, extensions
) -> None:
    options = {} if extensions is None else {"extensions": extensions}
    async with Sink({phase: [Rule(then=then)]}, **options) as sink:
        patience = hasty(phase) if then == "hang" else PATIENT
        error = await refused(transport_to(sink, timeouts=patience), fence)
    assert error.phase == Phase(phase)
    assert error.kind is (Kind.AMBIGUOUS if phase == "dot" else Kind.TEMPORARY)
    assert error.backoff is (Backoff.NEVER if phase == "dot" else Backoff.SHORT)
    assert error.reason == ("timeout" if then == "hang" else "connection_lost")
    assert fence.calls == (phase == "dot")


async def test_a_mail_accepted_without_a_word_is_ambiguous(transport_to: MakeTransport, fence: Fence) -> None:
    async with Sink({"dot": [Rule(then="close", accept=True)]}) as sink:
        error = await refused(transport_to(sink), fence)
    assert error.kind is Kind.AMBIGUOUS
    assert sink.count(message_id()) == 1


@pytest.mark.parametrize("phase", [*BEFORE, "dot"])
async def test_a_reply_that_drips_is_cut_off_by_the_timeout_of_its_phase(
    transport_to: MakeTransport, fence: Fence, phase: str
) -> None:
    usual = {"banner": "220 sink", "data": "354 go"}.get(phase, "250 ok, and a long story")
    async with Sink({phase: [Rule(usual, drip=0.1)]}) as sink:
        error = await refused(transport_to(sink, timeouts=hasty(phase)), fence)
    assert (error.phase, error.reason) == (Phase(phase), "timeout")
    assert error.kind is (Kind.AMBIGUOUS if phase == "dot" else Kind.TEMPORARY)


@pytest.mark.parametrize(
    ("phase", "said"),
    [
        ("banner", "SSH-2.0-OpenSSH_9.6"),
        ("ehlo", "\r\n".join(f"250-X{n}" for n in range(100_000))),
        ("mail", "hello there"),
        ("mail", "\r\n".join(f"250-X{n}" for n in range(100_000))),
        ("rcpt", "9" * 100_000),
        ("data", "199 what?"),
        ("data", "250 no 354 here"),
        ("rcpt", "354 go on"),
        ("dot", "354 more!"),
        ("dot", "x" * 100_000),
        ("dot", b"250-\xff\xfe\x00\r\n"),
    ],
)
async def test_what_is_not_smtp_is_refused(
    transport_to: MakeTransport, fence: Fence, phase: str, said: str | bytes
) -> None:
    async with Sink({phase: [Rule(said, then="hang")]}) as sink:
        error = await refused(transport_to(sink, timeouts=hasty(phase)), fence)
    assert error.phase == Phase(phase)
    assert error.reason in {"protocol_error", "timeout"}
    assert error.kind is (Kind.AMBIGUOUS if phase == "dot" else Kind.TEMPORARY)
    assert "\x00" not in error.text


async def test_a_server_that_speaks_in_the_middle_of_a_mail_is_not_sent_the_dot(
    transport_to: MakeTransport, fence: Fence
) -> None:
    async with Sink({"body": [Rule("552 5.3.4 enough", then="hang")]}) as sink:
        error = await refused(transport_to(sink), fence, data=mail(1, LONG))
    assert (error.phase, error.code, error.reason) == (Phase.BODY, 552, "message_too_large")
    assert error.kind is Kind.PERMANENT
    assert fence.calls == 0
    assert sink.mails == []


async def test_an_unasked_yes_before_the_dot_is_not_taken_for_the_dots(transport_to: MakeTransport) -> None:
    """A server that says 250 too early would otherwise turn a lost mail into a sent one."""

    async def wait(_: object) -> None:
        await asyncio.sleep(0.1)

    async with Sink({"body": [Rule("250 2.0.0 Ok: queued as LIE")], "dot": [Rule(then="close")]}) as sink:
        with pytest.raises(SmtpError) as caught:
            await transport_to(sink).send("from@example.org", ["to@example.org"], mail(), wait)
    assert (caught.value.phase, caught.value.kind) == (Phase.BODY, Kind.TEMPORARY)
    assert sink.mails == []


@pytest.mark.parametrize(
    ("pattern", "phase"),
    [(b"EHLO", "ehlo"), (b"MAIL", "mail"), (b"RCPT", "rcpt"), (b"DATA", "data"), (b"Message-ID", "dot")],
)
@pytest.mark.parametrize("half_open", [True, False], ids=["half-open", "cut"])
async def test_a_network_that_fails_is_ambiguous_after_the_dot_only(
    transport_to: MakeTransport, fence: Fence, pattern: bytes, phase: str, half_open: bool
) -> None:
    async with Sink(extensions=BARE) as sink, Proxy(sink.host, sink.port) as proxy:
        (proxy.blackhole_at if half_open else proxy.cut_at)(pattern)
        error = await refused(transport_to(proxy, timeouts=hasty(phase if half_open else "quit")), fence)
    # A cut while the mail is on its way may be noticed before the dot is written, or just after it.
    assert error.phase == phase or (phase == "dot" and error.phase is Phase.BODY)
    assert error.kind is (Kind.AMBIGUOUS if error.phase is Phase.DOT else Kind.TEMPORARY)
    assert error.reason == ("timeout" if half_open else "connection_lost")
    assert sink.mails == []


async def test_a_connection_half_open_since_the_fence_is_ambiguous(transport_to: MakeTransport) -> None:
    async with Sink() as sink, Proxy(sink.host, sink.port) as proxy:

        async def fall_silent(_: object) -> None:
            proxy.blackhole()

        error = await refused(transport_to(proxy, timeouts=hasty("dot")), fall_silent)
    assert (error.phase, error.kind, error.reason) == (Phase.DOT, Kind.AMBIGUOUS, "timeout")
    assert sink.mails == []


async def test_a_body_that_nobody_reads_times_out_before_the_fence(transport_to: MakeTransport, fence: Fence) -> None:
    async with Sink({"body": [Rule(then="hang")]}) as sink:
        error = await refused(transport_to(sink, timeouts=hasty("body", 0.5)), fence, data=mail(1, LONG))
    assert (error.phase, error.kind, error.reason) == (Phase.BODY, Kind.TEMPORARY, "timeout")
    assert fence.calls == 0


async def test_the_total_deadline_bounds_what_no_phase_does(transport_to: MakeTransport, fence: Fence) -> None:
    async with Sink(delay=0.2, extensions=BARE) as sink:
        error = await refused(transport_to(sink, timeouts=hasty("total", 0.5)), fence)
    assert (error.kind, error.reason) == (Kind.TEMPORARY, "timeout")
    assert fence.calls == 0


async def test_an_unreachable_server_is_named_and_temporary(transport_to: MakeTransport, fence: Fence) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = type("Nobody", (), {"host": "127.0.0.1", "port": taken.getsockname()[1]})
        error = await refused(transport_to(nobody), fence)
    assert (error.phase, error.kind, error.reason) == (Phase.CONNECT, Kind.TEMPORARY, "unreachable")


async def test_a_name_that_does_not_resolve_is_told_apart(transport_to: MakeTransport, fence: Fence) -> None:
    nowhere = type("Nowhere", (), {"host": "no-such-host.invalid", "port": 25})
    error = await refused(transport_to(nowhere, timeouts=Timeouts(connect=5)), fence)
    assert (error.phase, error.kind) == (Phase.CONNECT, Kind.TEMPORARY)
    assert error.reason in {"dns_failed", "timeout"}


async def test_a_server_that_knows_only_helo_is_served(transport_to: MakeTransport, fence: Fence) -> None:
    async with Sink({"ehlo": [Rule("502 5.5.1 not implemented")]}) as sink:
        reply = await transport_to(sink).send("from@example.org", ["to@example.org"], mail(), fence)
    assert reply.code == 250
    assert sink.sessions[0].verbs[:3] == ["EHLO", "HELO", "MAIL"]
