"""Credentials are shown to a server that was verified, once, and never in clear."""

import ssl

import pytest

from service.smtp import Backoff, Kind, Phase, SmtpError
from service.smtp.auth import choose
from tests.faults.sink import Rule, Sink
from tests.service.smtp.conftest import Fence, MakeTransport, hasty, mail

USERS = {"user@example.org": "pä$$ wörd"}
LOGIN = {"username": "user@example.org", "password": "pä$$ wörd"}


async def send(transport, fence):
    return await transport.send("from@example.org", ["to@example.org"], mail(), fence)


@pytest.mark.parametrize("method", ["PLAIN", "LOGIN", "CRAM-MD5"])
async def test_each_method_logs_in_once_per_connection(
    transport_to: MakeTransport, fence: Fence, method: str, server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with Sink(users=USERS, tls=server_tls, extensions=(f"AUTH {method}",)) as sink:
        transport = transport_to(sink, tls="tls", context=trusting, **LOGIN)
        await send(transport, fence)
        await send(transport, fence)
    assert [session.user for session in sink.sessions] == ["user@example.org"]
    assert [line.split()[1] for line in sink.sessions[0].lines if line.startswith("AUTH")] == [method]


async def test_a_wrong_password_is_tried_once_and_costs_no_mail(
    transport_to: MakeTransport, fence: Fence, server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with Sink(users=USERS, tls=server_tls) as sink:
        transport = transport_to(sink, tls="tls", context=trusting, username="user@example.org", password="wrong")
        with pytest.raises(SmtpError) as caught:
            await send(transport, fence)
    error = caught.value
    assert (error.phase, error.code, error.enhanced) == (Phase.AUTH, 535, "5.7.8")
    assert (error.kind, error.reason, error.backoff) == (Kind.TEMPORARY, "auth_failed", Backoff.OPERATOR)
    assert sink.sessions[0].verbs.count("AUTH") == 1
    assert "wrong" not in f"{error} {error.detail()}"


async def test_a_method_the_server_does_not_really_do_is_passed_over(
    transport_to: MakeTransport, fence: Fence, server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with Sink({"auth": [Rule("504 5.5.4 no", times=1)]}, users=USERS, tls=server_tls) as sink:
        await send(transport_to(sink, tls="tls", context=trusting, **LOGIN), fence)
    assert [line.split()[1] for line in sink.sessions[0].lines if line.startswith("AUTH")] == ["PLAIN", "LOGIN"]


async def test_credentials_are_not_sent_in_clear(transport_to: MakeTransport, fence: Fence) -> None:
    async with Sink(users=USERS, extensions=("AUTH PLAIN LOGIN",)) as sink:
        with pytest.raises(SmtpError) as caught:
            await send(transport_to(sink, **LOGIN), fence)
    assert (caught.value.phase, caught.value.reason) == (Phase.AUTH, "auth_needs_tls")
    assert sink.sessions[0].verbs == ["EHLO"]


async def test_credentials_are_sent_in_clear_only_when_told_to(transport_to: MakeTransport, fence: Fence) -> None:
    async with Sink(users=USERS, extensions=("AUTH PLAIN LOGIN",)) as sink:
        await send(transport_to(sink, plaintext_auth=True, **LOGIN), fence)
    assert sink.sessions[0].user == "user@example.org"


async def test_a_challenge_may_be_answered_in_clear(transport_to: MakeTransport, fence: Fence) -> None:
    async with Sink(users=USERS) as sink:
        await send(transport_to(sink, **LOGIN), fence)
    assert [line for line in sink.sessions[0].lines if line.startswith("AUTH")] == ["AUTH CRAM-MD5"]


@pytest.mark.parametrize("offer", [(), ("AUTH GSSAPI XOAUTH2",)])
async def test_no_method_in_common_is_said(
    transport_to: MakeTransport, fence: Fence, offer, server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with Sink(tls=server_tls, extensions=("SIZE 1000", *offer)) as sink:
        with pytest.raises(SmtpError) as caught:
            await send(transport_to(sink, tls="tls", context=trusting, **LOGIN), fence)
    assert (caught.value.reason, caught.value.kind) == ("auth_unsupported", Kind.TEMPORARY)


@pytest.mark.parametrize("then", ["hang", "close"])
async def test_silence_at_auth_is_temporary(transport_to: MakeTransport, fence: Fence, then) -> None:
    async with Sink({"auth": [Rule(then=then)]}, users=USERS) as sink:
        with pytest.raises(SmtpError) as caught:
            await send(transport_to(sink, timeouts=hasty("auth"), **LOGIN), fence)
    assert (caught.value.phase, caught.value.kind) == (Phase.AUTH, Kind.TEMPORARY)


def test_the_best_method_comes_first() -> None:
    assert choose(["cram-md5", "login", "plain", "gssapi"], secret=True) == ["plain", "login", "cram-md5"]
    assert choose(["login", "plain"], secret=False) == []
