"""The fence stands right before the final dot: refused, the mail is certainly not there; passed, it is the dot's."""

import asyncio

import pytest

from service.smtp import Kind, Phase, SmtpError
from tests.faults.proxy import Proxy
from tests.faults.sink import Rule, Sink
from tests.service.smtp.conftest import LINE, Fence, MakeTransport, mail, message_id, until


class Lost(Exception):
    """The caller's own reason not to go on."""


async def test_the_server_has_everything_but_the_dot_when_the_fence_is_asked(transport_to: MakeTransport) -> None:
    data = mail(1, LINE * 1500)
    seen: list[tuple[int, int]] = []
    async with Sink() as sink:

        async def look(_: object) -> None:
            await until(lambda: sink.sessions[0].body_bytes == len(data))
            await asyncio.sleep(0.05)
            seen.append((sink.sessions[0].body_bytes, len(sink.mails)))

        await transport_to(sink).send("from@example.org", ["to@example.org"], data, look)
    assert seen == [(len(data), 0)]
    assert sink.count(message_id()) == 1


@pytest.mark.parametrize("size", [1, 2000])
async def test_a_refused_fence_leaves_nothing_behind_and_comes_out_unchanged(
    transport_to: MakeTransport, size: int
) -> None:
    async with Sink() as sink:
        transport = transport_to(sink)
        lost = Lost()
        with pytest.raises(Lost) as caught:
            await transport.send("from@example.org", ["to@example.org"], mail(1, LINE * size), Fence(lost))
        assert caught.value is lost
        await transport.send("from@example.org", ["to@example.org"], mail(2), Fence())
        await asyncio.sleep(0.05)
    assert [each.message_id for each in sink.mails] == [message_id(2)]
    assert len(sink.sessions) == 2, "the connection of the refused mail must not be used again"
    assert transport.load.open == 1


async def test_a_fence_that_is_cancelled_leaves_nothing_behind(transport_to: MakeTransport) -> None:
    async with Sink() as sink:
        transport = transport_to(sink)
        asked = asyncio.Event()

        async def think(_: object) -> None:
            asked.set()
            await asyncio.sleep(60)

        sending = asyncio.create_task(transport.send("from@example.org", ["to@example.org"], mail(), think))
        await asked.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await asyncio.sleep(0.05)
    assert sink.mails == []
    assert transport.load.open == 0


async def test_a_mail_cancelled_in_mid_conversation_takes_its_connection_with_it(transport_to: MakeTransport) -> None:
    """The replies it did not wait for must not be taken for those of the next mail."""
    async with Sink({"mail": [Rule(delay=0.5, times=1)]}) as sink:
        transport = transport_to(sink)
        sending = asyncio.create_task(transport.send("from@example.org", ["to@example.org"], mail(1), Fence()))
        await until(lambda: sink.sessions and "MAIL" in sink.sessions[0].verbs)
        sending.cancel()
        await asyncio.wait({sending})
        await transport.send("from@example.org", ["to@example.org"], mail(2), Fence())
    assert [each.message_id for each in sink.mails] == [message_id(2)]
    assert len(sink.sessions) == 2


async def test_a_connection_that_dies_during_the_fence_is_definite(transport_to: MakeTransport) -> None:
    """The intent is on record by then, yet the dot was never written: the mail is not there."""
    async with Sink() as sink:

        async def die(_: object) -> None:
            sink.cut()
            await asyncio.sleep(0.05)

        with pytest.raises(SmtpError) as caught:
            await transport_to(sink).send("from@example.org", ["to@example.org"], mail(), die)
    assert (caught.value.phase, caught.value.kind) == (Phase.BODY, Kind.TEMPORARY)
    assert sink.mails == []


@pytest.mark.parametrize("passing", [True, False], ids=["dot-arrives", "dot-lost"])
async def test_a_cut_with_the_dot_on_its_way_is_ambiguous(transport_to: MakeTransport, passing: bool) -> None:
    async with Sink() as sink, Proxy(sink.host, sink.port) as proxy:

        async def cut(_: object) -> None:
            proxy.cut_at(b"\r\n.\r\n", passing=passing)

        with pytest.raises(SmtpError) as caught:
            await transport_to(proxy).send("from@example.org", ["to@example.org"], mail(), cut)
        await asyncio.sleep(0.1)
    assert (caught.value.phase, caught.value.kind) == (Phase.DOT, Kind.AMBIGUOUS)
    assert sink.count(message_id()) == passing


async def test_the_fence_is_not_asked_when_nobody_is_left_to_receive(transport_to: MakeTransport) -> None:
    async with Sink({"rcpt": [Rule("550 5.1.1 no such user", when="gone@")]}) as sink:
        fence = Fence()
        with pytest.raises(SmtpError) as caught:
            await transport_to(sink).send("from@example.org", ["gone@example.org"], mail(), fence)
    assert (caught.value.reason, caught.value.kind, caught.value.enhanced) == ("no_such_user", Kind.PERMANENT, "5.1.1")
    assert fence.calls == 0


async def test_a_354_with_nobody_to_receive_is_left_without_a_dot(transport_to: MakeTransport) -> None:
    async with Sink({"rcpt": [Rule("550 5.1.1 gone", times=1)], "data": [Rule("354 whoever", times=1)]}) as sink:
        transport = transport_to(sink)

        async def never(_: object) -> None:
            raise AssertionError("the fence was asked")

        with pytest.raises(SmtpError):
            await transport.send("from@example.org", ["gone@example.org"], mail(), never)
        assert transport.load.open == 0, "the server waits for a mail there"
        await transport.send("from@example.org", ["to@example.org"], mail(2), Fence())
    assert [each.message_id for each in sink.mails] == [message_id(2)]


async def test_some_refused_recipients_do_not_keep_the_mail_from_the_others(
    transport_to: MakeTransport, fence: Fence
) -> None:
    to = ["a@example.org", "gone@example.org", "full@example.org", "b@example.org", "a@example.org"]
    rules = {"rcpt": [Rule("550 5.1.1 no", when="gone@"), Rule("452 4.2.2 full", when="full@")]}
    async with Sink(rules) as sink:
        reply = await transport_to(sink).send("from@example.org", to, mail(), fence)
    assert reply.accepted == ("a@example.org", "b@example.org")
    assert {who: said.code for who, said in reply.refused.items()} == {"gone@example.org": 550, "full@example.org": 452}
    assert sink.mails[0].recipients == ["a@example.org", "b@example.org"]


async def test_when_all_are_refused_one_temporary_refusal_makes_it_worth_another_try(
    transport_to: MakeTransport, fence: Fence
) -> None:
    rules = {"rcpt": [Rule("550 5.1.1 no", when="gone@"), Rule("450 4.7.1 greylisted", when="grey@")]}
    async with Sink(rules) as sink:
        to = ["gone@example.org", "grey@example.org"]
        with pytest.raises(SmtpError) as caught:
            await transport_to(sink).send("from@example.org", to, mail(), fence)
    assert (caught.value.kind, caught.value.reason) == (Kind.TEMPORARY, "greylisted")
    assert {who: said.code for who, said in caught.value.refused.items()} == {
        "gone@example.org": 550,
        "grey@example.org": 450,
    }


async def test_a_greylisted_mail_gets_through_the_fourth_time(transport_to: MakeTransport) -> None:
    async with Sink({"rcpt": [Rule("450 4.7.1 greylisted, come back", times=3)]}) as sink:
        transport = transport_to(sink)
        for _ in range(3):
            with pytest.raises(SmtpError) as caught:
                await transport.send("from@example.org", ["to@example.org"], mail(), Fence())
            assert caught.value.reason == "greylisted"
        reply = await transport.send("from@example.org", ["to@example.org"], mail(), Fence())
    assert reply.queue_id == "00000001"
    assert len(sink.sessions) == 1, "a refused recipient costs no connection"
