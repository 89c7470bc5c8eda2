"""What waits, what runs, how fast: over HTTP, counted from real rows and real lists."""

from typing import Any
from uuid import UUID

import httpx
import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.message import Priority
from callboard_workers.redis.protocol import list_key
from service.dev.stack import Stack
from service.settings import Settings
from service.tasks.queue_stats import Queues
from tests.service.conftest import MakeKey
from tests.service.tasks.test_api import change, run_and_fail, store
from tests.service.web.test_hostile import problem


def at(items: list[dict[str, Any]], queue: str, priority: str = "normal") -> dict[str, Any]:
    return next(item for item in items if (item["queue"], item["priority"]) == (queue, priority))


async def operator(make_key: MakeKey) -> dict[str, str]:
    return {"Authorization": f"Bearer {await make_key('queues:read', 'operator')}"}


async def test_a_tenant_sees_its_own_and_no_doorbells(
    api: httpx.AsyncClient, engine: AsyncEngine, make_key: MakeKey
) -> None:
    theirs = await store(engine, queue="email")
    await change(engine, theirs, f"tenant_id = '{UUID(int=7)}'")
    await api.post("/send-test-email", json={"to": "ada@example.com"})
    ours = (await api.get("/v1/queues")).json()["items"]
    assert (sum(item["due"] for item in ours), {item["doorbells"] for item in ours}) == (1, {None})
    everybody = (await api.get("/v1/queues", headers=await operator(make_key))).json()["items"]
    assert sum(item["due"] for item in everybody) == 2


async def test_every_queue_is_told_by_priority(
    api: httpx.AsyncClient, engine: AsyncEngine, redis_url: str, make_key: MakeKey
) -> None:
    for _ in range(3):
        await store(engine, queue="email")
    later = await store(engine, queue="email")
    await change(engine, later, "due_at = now() + interval '1 h'")
    urgent = await store(engine, queue="email", priority=Priority.HIGH)
    await change(
        engine,
        urgent,
        "state='running', epoch=1, worker='w@1', lease_until=now()+interval '30 s', started_at=clock_timestamp()",
    )
    async with Redis.from_url(redis_url) as redis:
        await redis.lpush(list_key("email", Priority.NORMAL.number), "a", "b")
    items = (await api.get("/v1/queues", headers=await operator(make_key))).json()["items"]
    normal, high = at(items, "email"), at(items, "email", "high")
    assert (normal["due"], normal["scheduled"], normal["running"], normal["doorbells"]) == (3, 1, 0, 2)
    assert (high["due"], high["running"], high["oldest_age"]) == (0, 1, None)
    assert 0 <= normal["oldest_age"] < 60
    assert (normal["arrivals"], high["arrivals"], normal["departures"]) == (0.4, 0.1, None)


async def test_what_ended_since_the_look_before_is_the_rate(
    api: httpx.AsyncClient, engine: AsyncEngine, redis_url: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr("service.tasks.queue_stats.FRESH", 0.0)
    monkeypatch.setattr("service.tasks.queue_stats.SHARE", 0)
    async with Redis.from_url(redis_url) as redis:
        queues = Queues(engine, redis)
        messages = [await store(engine, queue="email") for _ in range(4)]
        await queues.report(None)
        for message in messages[:2]:
            await run_and_fail(engine, message)
            await change(engine, message, "state='canceled', finished_at=clock_timestamp()")
        told = next(report for report in await queues.report(None) if report.queue == "email" and report.due)
    assert told.departures is not None
    assert told.departures > 0
    assert told.due == 2


async def test_an_answer_is_given_again_for_a_while(
    api: httpx.AsyncClient, engine: AsyncEngine, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.tasks.queue_stats.FRESH", 600.0)
    operating = await operator(make_key)
    first = (await api.get("/v1/queues", headers=operating)).json()
    await store(engine, queue="email")
    assert (await api.get("/v1/queues", headers=operating)).json() == first


async def test_without_redis_the_ledger_is_told(
    api: httpx.AsyncClient, engine: AsyncEngine, stack: Stack, make_key: MakeKey
) -> None:
    await store(engine, queue="email")
    operating = await operator(make_key)
    stack.valkey.kill()
    try:
        told = at((await api.get("/v1/queues", headers=operating)).json()["items"], "email")
    finally:
        stack.valkey.start()
    assert (told["due"], told["doorbells"]) == (1, None)


async def test_it_takes_the_scope(api: httpx.AsyncClient, make_key: MakeKey, settings: Settings) -> None:
    bare = {"Authorization": f"Bearer {await make_key('emails:send')}"}
    assert problem(await api.get("/v1/queues", headers=bare), 403)["code"] == "scope-missing"
