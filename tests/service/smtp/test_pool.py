"""Connections are kept, bounded, handed out in turn, replaced when they die; a failing server is left alone."""

import asyncio
from uuid import UUID, uuid4

import pytest

from callboard_workers.context import Context, enter
from service.smtp import Kind, Phase, SmtpError, Transport
from service.smtp.breaker import Breaker
from service.smtp.pool import Bounds
from tests.faults.proxy import Proxy
from tests.faults.sink import Rule, Sink
from tests.service.smtp.conftest import Fence, MakeTransport, hasty, mail, message_id, until


async def send(transport: Transport, number: int = 1):
    return await transport.send("from@example.org", ["to@example.org"], mail(number), Fence())


async def flood(transport: Transport, count: int) -> list:
    return await asyncio.gather(*(send(transport, n) for n in range(count)), return_exceptions=True)


async def test_connections_are_kept_and_bounded(transport_to: MakeTransport) -> None:
    async with Sink(delay=0.001) as sink:
        transport = transport_to(sink, pool_size=4)
        await flood(transport, 100)
        assert (transport.load.open, transport.load.idle) == (4, 4)
    assert sink.peak == 4
    assert len(sink.sessions) == 4
    assert sorted(each.message_id for each in sink.mails) == sorted(message_id(n) for n in range(100))


async def test_a_refused_mail_is_followed_by_rset_and_the_next_by_none(transport_to: MakeTransport) -> None:
    async with Sink({"rcpt": [Rule("550 5.1.1 no", times=1)]}) as sink:
        transport = transport_to(sink)
        with pytest.raises(SmtpError):
            await send(transport)
        await send(transport)
        await send(transport)
    assert sink.sessions[0].verbs == ["EHLO", "MAIL", "RCPT", "DATA", "RSET"] + ["MAIL", "RCPT", "DATA"] * 2


async def test_a_connection_retires_after_its_share_of_mails_with_a_quit(transport_to: MakeTransport) -> None:
    async with Sink() as sink:
        transport = transport_to(sink, bounds=Bounds(size=2, mails_per_connection=3))
        for n in range(7):
            await send(transport, n)
    assert [session.verbs.count("DATA") for session in sink.sessions] == [3, 3, 1]
    assert [session.verbs[-1] for session in sink.sessions[:2]] == ["QUIT", "QUIT"]


async def test_an_idle_connection_is_closed_after_a_while(transport_to: MakeTransport) -> None:
    async with Sink() as sink:
        transport = transport_to(sink, bounds=Bounds(size=2, idle=0.1))
        await send(transport)
        assert transport.load.idle == 1
        await until(lambda: transport.load.open == 0)
        assert sink.sessions[0].verbs[-1] == "QUIT"
        await send(transport)
    assert len(sink.sessions) == 2


async def test_a_kept_connection_that_the_server_closed_is_replaced_unseen(transport_to: MakeTransport) -> None:
    async with Sink() as sink:
        transport = transport_to(sink, pool_size=3)
        await flood(transport, 3)
        sink.cut()
        await until(lambda: transport.load.open == 0)  # the dead are noticed while they are idle
        assert [answer.code for answer in await flood(transport, 3)] == [250] * 3


@pytest.mark.parametrize("last_words", ["421 4.4.2 idle for too long", None])
async def test_a_kept_connection_that_dies_at_mail_is_replaced_unseen(
    transport_to: MakeTransport, last_words: str | None
) -> None:
    async with Sink() as sink:
        transport = transport_to(sink)
        await send(transport, 1)
        sink.rules["mail"] = [Rule(last_words, then="close", times=1)]
        fence = Fence()
        await transport.send("from@example.org", ["to@example.org"], mail(2), fence)
    assert fence.calls == 1
    assert [each.message_id for each in sink.mails] == [message_id(1), message_id(2)]


async def test_a_kept_connection_gone_half_open_is_found_out_by_rset(
    transport_to: MakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.smtp.connection.RESET_AFTER", 0.05)
    async with Sink() as sink, Proxy(sink.host, sink.port) as proxy:
        transport = transport_to(proxy, timeouts=hasty("rset"))
        await send(transport, 1)
        await asyncio.sleep(0.1)
        sink.rules["rset"] = [Rule(then="hang", times=1)]
        await send(transport, 2)
    assert [each.message_id for each in sink.mails] == [message_id(1), message_id(2)]
    assert proxy.connections == 2


async def test_a_fresh_connection_that_dies_is_not_tried_again(transport_to: MakeTransport) -> None:
    async with Sink({"mail": [Rule(then="close")]}) as sink:
        with pytest.raises(SmtpError) as caught:
            await send(transport_to(sink))
    assert caught.value.reason == "connection_lost"
    assert len(sink.sessions) == 1


async def test_after_the_dot_nothing_is_ever_sent_again(transport_to: MakeTransport) -> None:
    async with Sink() as sink:
        transport = transport_to(sink)
        await send(transport, 1)
        sink.rules["dot"] = [Rule(then="close", accept=True)]
        with pytest.raises(SmtpError) as caught:
            await send(transport, 2)
    assert caught.value.kind is Kind.AMBIGUOUS
    assert sink.count(message_id(2)) == 1


@pytest.mark.parametrize("slow_banner", [0.0, 0.05])
async def test_the_limit_of_the_server_is_learnt_without_a_failed_mail(
    transport_to: MakeTransport, slow_banner: float
) -> None:
    async with Sink(cap=3, delay=slow_banner) as sink:
        transport = transport_to(sink, pool_size=20)
        answers = await flood(transport, 30)
    assert [answer for answer in answers if isinstance(answer, Exception)] == []
    assert transport.load.limit == 3
    assert len(sink.sessions) <= 20, "each connection too many is refused once, not over and over"


async def test_the_limit_grows_again_slowly(transport_to: MakeTransport) -> None:
    async with Sink(cap=2, delay=0.002) as sink:
        transport = transport_to(sink, bounds=Bounds(size=5, grow_after=0.1))
        await flood(transport, 20)
        assert transport.load.limit == 2
        sink.cap = 100
        for _ in range(8):
            await asyncio.sleep(0.11)
            await flood(transport, 10)
    assert transport.load.limit == 5
    assert sink.peak >= 5


async def test_waiting_is_in_order_of_arrival(transport_to: MakeTransport) -> None:
    async with Sink(delay=0.002) as sink:
        transport = transport_to(sink, pool_size=1)
        await flood(transport, 20)
    assert [each.message_id for each in sink.mails] == [message_id(n) for n in range(20)]


async def test_the_queue_is_bounded_and_says_so(transport_to: MakeTransport) -> None:
    async with Sink(delay=0.05) as sink:
        answers = await flood(transport_to(sink, bounds=Bounds(size=1, waiting=2)), 10)
    refused = [answer.reason for answer in answers if isinstance(answer, SmtpError)]
    assert refused == ["pool_full"] * 7
    assert len(sink.mails) == 3


async def test_waiting_ends_at_the_deadline(transport_to: MakeTransport) -> None:
    async with Sink({"dot": [Rule(delay=2.0, times=1)]}) as sink:
        transport = transport_to(sink, pool_size=1, timeouts=hasty("total", 1.5))
        first, second = await flood(transport, 2)
        assert (second.reason, second.kind) == ("pool_exhausted", Kind.TEMPORARY)
        assert first.code == 250
        assert transport.load.waiting == 0
        assert (await send(transport)).code == 250


async def test_a_caller_that_gives_up_waiting_loses_no_connection(transport_to: MakeTransport) -> None:
    async with Sink(delay=0.01) as sink:
        transport = transport_to(sink, pool_size=2)
        for round_ in range(20):
            tasks = [asyncio.create_task(send(transport, n)) for n in range(8)]
            await asyncio.sleep(0.003 * round_)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert transport.load.open <= 2
        assert transport.load.waiting == 0
        assert [answer.code for answer in await flood(transport, 6)] == [250] * 6
    assert sink.peak <= 3, "a dropped connection may still be closing"


async def test_the_breaker_opens_after_failures_in_a_row_and_a_scout_closes_it(transport_to: MakeTransport) -> None:
    now = [0.0]
    breaker = Breaker(threshold=3, cooldown=10, clock=lambda: now[0])
    async with Sink({"banner": [Rule("554 5.3.2 closed", times=4)]}) as sink:
        transport = transport_to(sink, breaker=breaker)
        for _ in range(3):
            with pytest.raises(SmtpError) as caught:
                await send(transport)
            assert caught.value.phase is Phase.BANNER
        for _ in range(5):
            with pytest.raises(SmtpError) as caught:
                await send(transport)
        error = caught.value
        assert (error.reason, error.kind, error.retry_after) == ("breaker_open", Kind.TEMPORARY, 10)
        assert len(sink.sessions) == 3, "nobody knocks while the breaker is open"
        now[0] = 11
        reasons = [answer.reason for answer in await flood(transport, 5)]
        assert (len(sink.sessions), reasons.count("breaker_open")) == (4, 4), "one scout only"
        now[0] = 40
        assert (await send(transport)).code == 250
        assert not transport.load.breaker_open


async def test_a_scout_that_is_called_off_lets_another_go(transport_to: MakeTransport) -> None:
    now = [0.0]
    breaker = Breaker(threshold=1, cooldown=10, clock=lambda: now[0])
    async with Sink({"banner": [Rule("554 5.3.2 closed", times=1), Rule(then="hang", times=1)]}) as sink:
        transport = transport_to(sink, breaker=breaker)
        with pytest.raises(SmtpError):
            await send(transport)
        now[0] = 11
        scout = asyncio.create_task(send(transport))
        await until(lambda: len(sink.sessions) == 2)
        scout.cancel()
        await asyncio.wait({scout})
        assert (await send(transport)).code == 250


async def test_a_dead_server_fails_a_flood_fast(transport_to: MakeTransport) -> None:
    async with Sink({"banner": [Rule(then="close")]}) as sink:
        answers = await flood(transport_to(sink, pool_size=5), 500)
    assert {answer.kind for answer in answers} == {Kind.TEMPORARY}
    assert len(sink.sessions) < 20


async def test_closing_says_quit_and_refuses_what_comes_after(transport_to: MakeTransport) -> None:
    async with Sink() as sink:
        transport = transport_to(sink, pool_size=3)
        await flood(transport, 3)
        await transport.close()
        assert [session.verbs[-1] for session in sink.sessions] == ["QUIT"] * 3
        with pytest.raises(SmtpError) as caught:
            await send(transport)
    assert (caught.value.reason, caught.value.kind) == ("closing", Kind.TEMPORARY)


async def test_closing_waits_for_what_is_under_way(transport_to: MakeTransport) -> None:
    async with Sink({"dot": [Rule(delay=0.2)]}) as sink:
        transport = transport_to(sink, pool_size=1)
        sending = [asyncio.create_task(send(transport, n)) for n in range(2)]
        await until(lambda: sink.sessions and transport.load.waiting == 1)
        await transport.close(grace=20)
        done, waiting = await asyncio.gather(*sending, return_exceptions=True)
    assert done.code == 250
    assert (waiting.reason, waiting.kind) == ("closing", Kind.TEMPORARY)


@pytest.mark.parametrize("phase", ["mail", "dot", "quit"])
async def test_closing_ends_in_bounded_time_whatever_the_server_does(transport_to: MakeTransport, phase: str) -> None:
    async with Sink({phase: [Rule(then="hang")]}) as sink:
        transport = transport_to(sink)
        sending = asyncio.create_task(send(transport))
        await until(lambda: sink.sessions and (phase.upper() if phase == "mail" else "DATA") in sink.sessions[0].verbs)
        await asyncio.sleep(0.1)
        async with asyncio.timeout(30):
            await transport.close(grace=0.1)
            answer = (await asyncio.gather(sending, return_exceptions=True))[0]
    if phase == "quit":
        assert answer.code == 250
    else:
        assert answer.kind is (Kind.AMBIGUOUS if phase == "dot" else Kind.TEMPORARY)


async def test_nothing_a_server_says_between_mails_is_taken_for_a_reply(transport_to: MakeTransport) -> None:
    async with Sink() as sink:
        transport = transport_to(sink)
        await send(transport, 1)
        for writer in sink._writers:
            writer.write(b"250 2.0.0 Ok: queued as LIE\r\n")
        await until(lambda: transport.load.open == 0)
        sink.rules["dot"] = [Rule("554 5.6.0 no")]
        with pytest.raises(SmtpError):
            await send(transport, 2)


async def test_connections_go_by_priority_and_then_to_the_tenant_served_least(transport_to: MakeTransport) -> None:
    async def send_as(priority: int, tenant: UUID, number: int) -> None:
        headers = {"tenant_id": str(tenant)}
        enter(Context(id=tenant, actor=None, queue="email", priority=priority, headers=headers))
        await send(transport, number)

    a, b, c = uuid4(), uuid4(), uuid4()
    async with Sink({"dot": [Rule(delay=0.02, accept=True)]}) as sink:
        transport = transport_to(sink, pool_size=2)
        flood = [asyncio.create_task(send_as(6, a, n)) for n in range(40)]
        bulk = [asyncio.create_task(send_as(9, b, n)) for n in range(40, 60)]
        await until(lambda: len(sink.mails) >= 4)
        before = len(sink.mails)
        late = [asyncio.create_task(send_as(6, b, 60 + n)) for n in range(3)]
        late += [asyncio.create_task(send_as(0, c, 70 + n)) for n in range(3)]
        await asyncio.gather(*flood, *bulk, *late)
    order = [mail.message_id for mail in sink.mails]
    places = {n: order.index(message_id(n)) - before for n in (60, 61, 62, 70, 71, 72)}
    assert max(places[n] for n in (70, 71, 72)) <= 4 + 3, places
    assert places[60] <= 4 + 3 + 2, places
    assert places[62] <= 4 + 3 + 2 * 3, places
    assert order.index(message_id(40)) < 20, "the lowest priority has its share"
