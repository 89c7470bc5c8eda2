"""Fetching: what Redis has given is never forgotten, whatever happens to the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
import redis.asyncio

from callboard_workers.message import Message, Priority
from callboard_workers.redis.fetcher import Intake
from callboard_workers.redis.in_flight import Parcel
from callboard_workers.redis.keys import Keys
from callboard_workers.redis.protocol import encode, list_key

KEYS = Keys()


class Proxy:
    """Passes bytes between a client and Redis; swallows the next answer that has a mark in it, and hangs up."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.mark: bytes | None = None
        self.swallowed = 0
        self.port = 0

    async def __aenter__(self) -> Proxy:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_redis, to_redis = await asyncio.open_connection("127.0.0.1", self.target)
        up = asyncio.create_task(self._pass(reader, to_redis, answers=False))
        await self._pass(from_redis, writer, answers=True)
        up.cancel()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        try:
            while data := await reader.read(65_536):
                if answers and self.mark is not None and self.mark in data:
                    self.mark = None
                    self.swallowed += 1
                    break
                writer.write(data)
        except OSError:
            pass
        finally:
            writer.close()


class Desk:
    """Takes parcels and keeps them until told to settle them."""

    def __init__(self, url: str, owner: str = "me", room: int = 10) -> None:
        self.parcels: list[Parcel] = []
        self.lost: list[Parcel] = []
        self.intake = Intake(
            url, KEYS, owner, lease=30.0, room=lambda: room, handle=self.parcels.append, lost=self.lost.extend
        )

    async def __aenter__(self) -> Desk:
        self.intake.add_queue("q")
        self.intake.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.intake.stop(2.0)

    async def has(self, count: int) -> list[bytes]:
        async with asyncio.timeout(60):
            while len(self.parcels) < count:  # noqa: ASYNC110 - the other side is a server
                await asyncio.sleep(0.01)
        return [parcel.envelope for parcel in self.parcels]


@pytest.fixture
async def server(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        yield client


async def test_an_answer_that_was_lost_on_the_way_is_found_again(redis_url: str, server: redis.asyncio.Redis) -> None:
    async with Proxy(int(redis_url.rpartition(":")[2].partition("/")[0])) as proxy:
        async with Desk(f"redis://127.0.0.1:{proxy.port}/0") as desk:
            await server.lpush("q", b"first")
            assert await desk.has(1) == [b"first"]
            proxy.mark = b"second"
            await server.lpush("q", b"second")
            assert await desk.has(2) == [b"first", b"second"]
            assert proxy.swallowed == 1
            for parcel in desk.parcels:
                desk.intake.holdings.ack(parcel)
            desk.intake.settled()
        assert await server.exists(KEYS.unacked("me")) == 0
        assert await server.llen("q") == 0


async def test_no_more_is_fetched_than_there_is_room_for(redis_url: str, server: redis.asyncio.Redis) -> None:
    await server.lpush("q", *(str(n) for n in range(25)))
    async with Desk(redis_url, room=10) as desk:
        assert await desk.has(10) == [str(n).encode() for n in range(10)]
        await asyncio.sleep(0.2)
        assert await server.llen("q") == 15
        for parcel in desk.parcels[:4]:
            desk.intake.holdings.ack(parcel)
        desk.intake.settled()
        await desk.has(14)


async def test_what_is_put_back_is_served_next_and_what_is_put_off_later(
    redis_url: str, server: redis.asyncio.Redis
) -> None:
    await server.lpush("q", "a", "b", "c")
    async with Desk(redis_url, room=2) as desk:
        await desk.has(2)
        a, b = desk.parcels
        desk.intake.holdings.park(a, 1.5, b"a again")
        desk.intake.holdings.put_back(b)
        desk.intake.settled()
        assert (await desk.has(4))[2:] == [b"b", b"c"]
        desk.intake.holdings.ack(desk.parcels[2])
        desk.intake.settled()
        assert (await desk.has(5))[4] == b"a again"


async def test_a_settlement_of_what_was_taken_over_does_nothing(redis_url: str, server: redis.asyncio.Redis) -> None:
    await server.lpush("q", "a", "b")
    async with Desk(redis_url) as desk:
        await desk.has(2)
        await server.delete(KEYS.unacked("me"))
        await server.set(KEYS.taken("me"), "another")
        desk.intake.holdings.put_back(desk.parcels[0])
        desk.intake.holdings.park(desk.parcels[1], 10)
        desk.intake.wake()
        async with asyncio.timeout(60):
            while desk.intake.holdings.owner == "me":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await server.llen("q") == 0
        assert await server.zcard(KEYS.delayed) == 0
        await server.lpush("q", "c")
        await desk.has(3)
        assert await server.hlen(KEYS.unacked("me~1")) == 1


async def test_the_lists_are_looked_at_by_priority_and_now_and_then_from_the_bottom(
    redis_url: str, server: redis.asyncio.Redis
) -> None:
    for priority in (9, 6, 3, 0):
        await server.lpush(list_key("q", priority), *(f"{priority}-{n}" for n in range(20)))
    async with Desk(redis_url, room=1) as desk:
        for n in range(40):
            envelopes = await desk.has(n + 1)
            desk.intake.holdings.ack(desk.parcels[n])
            desk.intake.settled()
    priorities = [envelope[:1] for envelope in envelopes]
    assert priorities[:7] == [b"0"] * 7
    assert priorities.count(b"9") == 5  # every eighth
    assert priorities.count(b"0") == 20


async def test_a_list_of_another_type_stops_no_other(redis_url: str, server: redis.asyncio.Redis) -> None:
    await server.set("q", "not a list")
    await server.lpush(list_key("q", 3), "a")
    async with Desk(redis_url) as desk:
        assert await desk.has(1) == [b"a"]


def doorbell(tenant: UUID | None, queue: str = "q", priority: Priority = Priority.NORMAL) -> bytes:
    message = Message(id=uuid4(), actor="a", queue=queue, priority=priority, tenant_id=tenant)
    return encode(message, durable=True)


async def served(desk: Desk, count: int, start: int = 0) -> list[bytes]:
    """Settles one message after the other, as one slot would; what was served from `start` on."""
    for n in range(start, start + count):
        await desk.has(n + 1)
        desk.intake.holdings.ack(desk.parcels[n])
        desk.intake.settled()
    return [parcel.envelope for parcel in desk.parcels[start : start + count]]


async def test_a_tenant_does_not_wait_behind_the_flood_of_another(redis_url: str, server: redis.asyncio.Redis) -> None:
    a, b, c = uuid4(), uuid4(), uuid4()
    key = list_key("q", 6)
    flood = [doorbell(a) for _ in range(5_000)]
    others = [doorbell(b), doorbell(None), doorbell(b)]
    await server.lpush(key, *flood, *others)
    async with Desk(redis_url, room=2) as desk:
        first = await served(desk, 30)
        late = doorbell(c)
        await server.lpush(key, late)
        then = await served(desk, 10, start=30)
    assert set(others) <= set(first)
    assert first.index(others[0]) < first.index(others[2])
    assert late in then
    own = [flood.index(envelope) for envelope in first if envelope not in others]
    assert own == list(range(len(own))), "a tenant's own doorbells keep their order"
    waiting = await server.llen(key) + int(await server.hget(KEYS.sorted, key) or 0)
    assert waiting == len(flood) + len(others) + 1 - len(desk.parcels)


async def test_messages_without_a_row_stay_in_their_list_and_share_its_turn(
    redis_url: str, server: redis.asyncio.Redis
) -> None:
    key = list_key("q", 6)
    direct = [encode(Message(id=uuid4(), actor="a", queue="q", tenant_id=uuid4())) for _ in range(300)]
    bells = [doorbell(uuid4()) for _ in range(20)]
    await server.lpush(key, *direct[:100], *bells, *direct[100:])
    async with Desk(redis_url, room=4) as desk:
        order = await served(desk, 320)
    assert [envelope for envelope in order if envelope in direct] == direct
    assert max(order.index(bell) for bell in bells) < 200
    assert await server.keys("workers:turns:*") == []
    assert await server.hlen(KEYS.sorted) == 0


async def test_what_was_sorted_is_served_to_another_worker(redis_url: str, server: redis.asyncio.Redis) -> None:
    bells = {doorbell(uuid4()) for _ in range(40)}
    await server.lpush(list_key("q", 9), *bells)
    async with Desk(redis_url, room=1) as desk:
        first = set(await served(desk, 5))
    async with Desk(redis_url, owner="you", room=100) as other:
        assert set(await other.has(35)) == bells - first


async def test_slots_are_kept_for_critical_messages_and_for_other_queues(
    redis_url: str, server: redis.asyncio.Redis
) -> None:
    await server.lpush(list_key("q", 9), *(str(n) for n in range(200)))
    async with Desk(redis_url, room=64) as desk:
        await desk.has(60)
        await asyncio.sleep(0.2)
        assert len(desk.parcels) == 60
        before = (await server.info("commandstats"))["cmdstat_evalsha"]["calls"]
        await asyncio.sleep(0.5)
        assert (await server.info("commandstats"))["cmdstat_evalsha"]["calls"] - before < 10, (
            "it waits, it does not spin"
        )
        await server.lpush("q", "critical")
        assert (await desk.has(61))[60] == b"critical"
        desk.intake.add_queue("other")
        await server.lpush(list_key("other", 6), "of another queue")
        await served(desk, 20)
        assert b"of another queue" in await desk.has(62)
        held = desk.intake.holdings.held
        assert held[list_key("q", 9)] == 48
