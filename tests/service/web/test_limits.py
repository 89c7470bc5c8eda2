"""Rate limits: shared by all processes, told in headers, open where Redis is away."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from service.dev.stack import Stack
from service.settings import Settings
from tests.service.conftest import MakeKey, client_of
from tests.service.web.shelf import router
from tests.service.web.test_hostile import problem


@pytest.fixture
async def limited(settings: Settings, books: None, make_key: MakeKey) -> AsyncIterator[Any]:
    """Makes a client of an application of its own, with limits."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(**limits: str) -> httpx.AsyncClient:
            where = {"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url}
            tight = Settings.from_env({**where, "SECRET_KEY": "a secret of tests only", **limits})
            client = await stack.enter_async_context(client_of(tight, routers=[router]))
            client.headers["Authorization"] = f"Bearer {await make_key()}"
            return client

        yield make


async def statuses(*clients: httpx.AsyncClient, requests: int) -> Counter[int]:
    jobs = [client.get("/v1/whoami") for _ in range(requests) for client in clients]
    return Counter(answer.status_code for answer in await asyncio.gather(*jobs))


async def test_two_processes_share_one_limit_to_the_request(limited: Any) -> None:
    one, other = [await limited(RATE_LIMIT_TENANT="40", RATE_LIMIT_WINDOW="600") for _ in range(2)]
    assert await statuses(one, other, requests=50) == {200: 40, 429: 60}


async def test_a_key_has_a_limit_of_its_own(limited: Any) -> None:
    one, other = [await limited(RATE_LIMIT_KEY="5", RATE_LIMIT_WINDOW="600") for _ in range(2)]
    assert await statuses(one, requests=8) == {200: 5, 429: 3}
    assert await statuses(other, requests=8) == {200: 5, 429: 3}


async def test_what_is_left_and_when_to_come_again_are_told(limited: Any) -> None:
    client = await limited(RATE_LIMIT_KEY="2", RATE_LIMIT_TENANT="100", RATE_LIMIT_WINDOW="600")
    first = await client.get("/v1/whoami")
    assert first.headers["ratelimit-policy"] == '"key";q=2;w=600, "tenant";q=100;w=600'
    assert first.headers["ratelimit"] == '"key";r=1;t=300, "tenant";r=99;t=6'
    await client.get("/v1/whoami")
    for _ in range(2):  # from Redis, then from memory
        refused = await client.get("/v1/whoami")
        told = problem(refused, 429)
        assert told["code"] == "rate-limited"
        assert "2 requests of this key in 600 s" in told["detail"]
        assert 200 <= int(refused.headers["retry-after"]) <= 300
        assert refused.headers["ratelimit"].startswith('"key";r=0;t=')


async def test_the_bucket_fills_evenly(limited: Any) -> None:
    client = await limited(RATE_LIMIT_KEY="10", RATE_LIMIT_WINDOW="4")
    assert (await statuses(client, requests=30))[429] >= 10
    await asyncio.sleep(4.1)
    assert (await statuses(client, requests=10)) == {200: 10}


async def test_a_test_key_has_buckets_of_its_own(limited: Any, make_key: MakeKey) -> None:
    client = await limited(RATE_LIMIT_TENANT="3", RATE_LIMIT_WINDOW="600")
    assert await statuses(client, requests=4) == {200: 3, 429: 1}
    client.headers["Authorization"] = f"Bearer {await make_key(mode='test')}"
    assert await statuses(client, requests=4) == {200: 3, 429: 1}


async def test_a_refusal_is_never_kept_for_an_idempotency_key(limited: Any, redis_url: str) -> None:
    client = await limited(RATE_LIMIT_KEY="1", RATE_LIMIT_WINDOW="600")
    again = {"Idempotency-Key": "k-1"}
    await client.get("/v1/whoami")
    problem(await client.post("/v1/books", json={"title": "t"}, headers=again), 429)
    async with Redis.from_url(redis_url) as redis:
        await redis.flushdb()
    fresh = await limited(RATE_LIMIT_KEY="2", RATE_LIMIT_WINDOW="600")
    fresh.headers["Authorization"] = client.headers["Authorization"]
    answer = await fresh.post("/v1/books", json={"title": "t"}, headers=again)
    assert answer.status_code == 202
    assert "idempotency-replayed" not in answer.headers
    replayed = await fresh.post("/v1/books", json={"title": "t"}, headers=again)
    assert (replayed.headers["idempotency-replayed"], replayed.headers["ratelimit"][:9]) == ("true", '"key";r=0')


async def test_without_redis_everybody_passes_and_it_is_told(limited: Any, stack: Stack) -> None:
    client = await limited(RATE_LIMIT_KEY="1", RATE_LIMIT_WINDOW="600")
    stack.valkey.kill()
    try:
        with capture_logs() as lines:
            assert await statuses(client, requests=20) == {200: 20}
        assert "rate_limit_unchecked" in [line["event"] for line in lines]
    finally:
        stack.valkey.start()
    told = (await client.get("/metrics")).text
    assert 'http_rate_limit_total{outcome="unchecked"} 20.0' in told


async def test_a_frozen_redis_holds_nobody_up_for_long(limited: Any, stack: Stack) -> None:
    client = await limited(RATE_LIMIT_KEY="100", RATE_LIMIT_WINDOW="600")
    await client.get("/v1/whoami")
    stack.valkey.pause()
    try:
        async with asyncio.timeout(30):
            assert await statuses(client, requests=20) == {200: 20}
    finally:
        stack.valkey.resume()


async def test_nothing_is_limited_and_nothing_told_by_default(limited: Any) -> None:
    client = await limited()
    answer = await client.get("/v1/whoami")
    assert answer.status_code == 200
    assert "ratelimit" not in answer.headers
