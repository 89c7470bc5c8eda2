"""The publisher: one round trip for many, bounded in time, never in the way of the loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import redis

from callboard_workers.common.breaker import Breaker, Circuit
from callboard_workers.errors import BrokerUnavailable
from callboard_workers.message import Message, Priority
from callboard_workers.redis.publisher import Publisher
from service.dev.ports import free_port
from service.dev.stack import Stack

NORMAL = "default\x06\x166"


@asynccontextmanager
async def running(publisher: Publisher) -> AsyncIterator[Publisher]:
    await publisher.start()
    try:
        yield publisher
    finally:
        await publisher.stop()


@pytest.fixture
def frozen(stack: Stack, redis_url: str) -> Iterator[str]:
    stack.valkey.pause()
    yield redis_url
    stack.valkey.resume()


def client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url)


async def test_concurrent_senders_share_round_trips_and_none_is_lost(redis_url: str) -> None:
    server = client(redis_url)
    async with running(Publisher(redis_url)) as publisher:
        await publisher.publish([Message(actor="a.b")])
        before = server.info("commandstats")["cmdstat_lpush"]["calls"]
        await asyncio.gather(*(publisher.publish([Message(actor="a.b", args=(n,))]) for n in range(1000)))
        calls = server.info("commandstats")["cmdstat_lpush"]["calls"] - before
    assert server.llen(NORMAL) == 1001
    assert calls <= 10


async def test_messages_leave_in_the_order_they_were_sent(redis_url: str) -> None:
    messages = [Message(actor="a.b") for _ in range(5)]
    async with running(Publisher(redis_url)) as publisher:
        await publisher.publish(messages[:3])
        await publisher.publish(messages[3:])
    server = client(redis_url)
    found = [json.loads(server.rpop(NORMAL))["headers"]["id"] for _ in messages]
    assert found == [str(message.id) for message in messages]


async def test_each_priority_has_its_list_and_the_prefix_goes_before(redis_url: str) -> None:
    async with running(Publisher(redis_url, key_prefix="p:")) as publisher:
        await publisher.publish([Message(actor="a.b", queue="email", priority=priority) for priority in Priority])
    server = client(redis_url)
    assert {key for key in server.scan_iter() if server.type(key) == b"list"} == {
        b"p:email",
        b"p:email\x06\x163",
        b"p:email\x06\x166",
        b"p:email\x06\x169",
    }


async def test_a_refused_connection_fails_fast_and_the_open_circuit_at_once() -> None:
    async with running(Publisher(f"redis://127.0.0.1:{free_port()}/0", deadline=60)) as publisher:
        publisher._breaker = Breaker(pause_min=600, pause_max=600)
        started = time.monotonic()
        with pytest.raises(BrokerUnavailable, match="unreachable"):
            await publisher.publish([Message(actor="a.b")])
        with pytest.raises(BrokerUnavailable, match="is down"):
            await publisher.publish([Message(actor="a.b")])
        assert time.monotonic() - started < publisher.deadline


async def test_a_frozen_broker_costs_one_deadline_and_never_the_loop(frozen: str) -> None:
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.01)
            beats += 1

    heart = asyncio.create_task(beat())
    async with running(Publisher(frozen, deadline=0.5)) as publisher:
        results = await asyncio.gather(
            *(publisher.publish([Message(actor="a.b")]) for _ in range(50)), return_exceptions=True
        )
    heart.cancel()
    assert all(isinstance(result, BrokerUnavailable) for result in results)
    assert beats > 5


async def test_doorbells_wait_out_an_outage_and_the_oldest_give_way(stack: Stack, redis_url: str) -> None:
    async with running(Publisher(redis_url, deadline=0.3, max_buffer=100)) as publisher:
        await until_published(publisher)
        stack.valkey.pause()
        try:
            publisher.ring([Message(actor="a.b")])
            await asyncio.sleep(0.5)
            for _ in range(150):
                publisher.ring([Message(actor="a.b")])
            assert publisher.dropped > 0
        finally:
            stack.valkey.resume()
        server = client(redis_url)
        async with asyncio.timeout(60):
            while server.llen(NORMAL) < 101:  # noqa: ASYNC110 - the other side is a server
                await asyncio.sleep(0.05)
        await until_published(publisher)  # the circuit is closed again


async def until_published(publisher: Publisher) -> None:
    """Publish, however often a busy machine takes longer than the deadline."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(BrokerUnavailable):
                return await publisher.publish([Message(actor="a.b")])
            await asyncio.sleep(0.05)


async def test_a_cancelled_sender_whose_turn_has_not_come_sends_nothing(frozen: str, stack: Stack) -> None:
    async with running(Publisher(frozen, deadline=60)) as publisher:
        first = asyncio.create_task(publisher.publish([Message(actor="a.first")]))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(publisher.publish([Message(actor="a.second")]))
        await asyncio.sleep(0.1)
        second.cancel()
        stack.valkey.resume()
        await first
    assert client(frozen).llen(NORMAL) == 1


async def test_the_brokers_refusal_is_told_to_the_sender(redis_url: str) -> None:
    server = client(redis_url)
    server.set(NORMAL, "not a list")
    async with running(Publisher(redis_url)) as publisher:
        with pytest.raises(BrokerUnavailable, match="refused the message"):
            await publisher.publish([Message(actor="a.b")])
        await publisher.publish([Message(actor="a.b", priority=Priority.HIGH)])  # others are not held up


async def test_stopping_pushes_what_was_rung(redis_url: str) -> None:
    async with running(Publisher(redis_url)) as publisher:
        publisher.ring([Message(actor="a.b") for _ in range(10)])
    assert client(redis_url).llen(NORMAL) == 10


async def test_a_publisher_that_is_not_started_says_so(redis_url: str) -> None:
    with pytest.raises(BrokerUnavailable, match="not started"):
        await Publisher(redis_url).publish([Message(actor="a.b")])


def test_the_breaker_lets_one_probe_through_and_doubles_its_pause() -> None:
    breaker = Breaker(pause_min=1, pause_max=3)
    assert breaker.allows(0)
    breaker.fail(0)
    assert not breaker.allows(0.5)
    assert breaker.allows(1.0)
    assert not breaker.allows(1.0)  # one probe is under way
    breaker.fail(1.0)
    assert breaker.retry_at == 3.0
    assert breaker.allows(3.0)
    breaker.forgo()
    assert breaker.allows(3.0)
    breaker.succeed()
    assert breaker.state is Circuit.closed
