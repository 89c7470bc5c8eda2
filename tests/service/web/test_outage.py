"""Postgres or Redis away: 503 soon, or accepted all the same; and well again by itself."""

import asyncio
import contextlib
import dataclasses
from collections.abc import Iterator

import httpx
import psutil
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.app import SILENCE
from service.dev.stack import Stack
from service.settings import Settings
from tests.service.conftest import MakeKey, client_of
from tests.service.web.shelf import router
from tests.service.web.test_hostile import problem

SOON = 60.0  # seconds, far below the statement timeout: what refuses soon is another


@pytest.fixture
def hasty(settings: Settings) -> Settings:
    """As impatient as it comes, but for statements."""
    where = {"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url}
    return Settings.from_env(where | {"DB_STATEMENT_TIMEOUT": "300"})


async def until_accepted(shelf: httpx.AsyncClient, route: str = "/v1/books", status: int = 202) -> None:
    async with asyncio.timeout(60):
        while (answer := await shelf.post(route, json={"title": "back"})).status_code != status:
            problem(answer, 503)
            await asyncio.sleep(0.05)


async def until_known(shelf: httpx.AsyncClient, bearer: dict[str, str]) -> None:
    async with asyncio.timeout(60):
        while (answer := await shelf.get("/v1/whoami", headers=bearer)).status_code != 200:
            problem(answer, 503)
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("route", ["/v1/books", "/v1/notes"])
async def test_postgres_killed_is_503_and_then_well_again(shelf: httpx.AsyncClient, stack: Stack, route: str) -> None:
    await until_accepted(shelf)
    stack.postgres.kill()
    try:
        for _ in range(3):
            async with asyncio.timeout(SOON):
                answer = await shelf.post(route, json={"title": "t"})
            assert problem(answer, 503)["code"] == "database-away"
            assert answer.headers["retry-after"] == "1"
        ready = await shelf.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "unready")
        assert (await shelf.get("/health/live")).status_code == 200
        assert (await shelf.get("/metrics")).status_code == 200
    finally:
        stack.postgres.start()
    await until_accepted(shelf)
    ready = await shelf.get("/health/ready")
    assert (ready.status_code, [check["ok"] for check in ready.json()["checks"].values()]) == (200, [True] * 3)
    assert {finding["name"] for finding in ready.json()["findings"]} == {"workers-missing"}, "what a test does not run"


async def test_a_restart_of_postgres_between_two_requests_costs_no_request(
    shelf: httpx.AsyncClient, stack: Stack
) -> None:
    await asyncio.gather(*(shelf.post("/v1/notes", json={"title": "t"}) for _ in range(20)))
    stack.postgres.kill()
    stack.postgres.start()
    await asyncio.sleep(0.1)  # the loop, which the two calls above held up, hears that the connections are gone
    answers = [await shelf.post("/v1/notes", json={"title": "t"}) for _ in range(20)]
    assert {answer.status_code for answer in answers} == {201}


@contextlib.contextmanager
def frozen(stack: Stack) -> Iterator[None]:
    """Postgres with every backend, each of which is a process of its own, stopped in the middle of what it does."""
    every = [psutil.Process(stack.postgres.pid), *psutil.Process(stack.postgres.pid).children()]
    for process in every:
        process.suspend()
    try:
        yield
    finally:
        for process in every:
            process.resume()


async def test_postgres_frozen_is_503_for_all_that_wait(
    hasty: Settings, make_key: MakeKey, books: None, stack: Stack
) -> None:
    quick = dataclasses.replace(hasty, db_accept_timeout=0.5)
    async with client_of(quick, routers=[router]) as shelf:
        shelf.headers["Authorization"] = f"Bearer {await make_key()}"
        await until_accepted(shelf)
        with frozen(stack):
            async with asyncio.timeout(SOON):
                jobs = [shelf.post("/v1/books", json={"title": "t"}) for _ in range(1000)]
                answers = await asyncio.gather(*jobs)
        for answer in answers:
            problem(answer, 503)
        await until_accepted(shelf)


async def test_postgres_frozen_while_nobody_asked_is_503_on_every_route_soon(
    hasty: Settings, books: None, stack: Stack, make_key: MakeKey
) -> None:
    unseen = {"Authorization": f"Bearer {await make_key()}"}
    async with client_of(hasty, routers=[router]) as shelf:
        shelf.headers["Authorization"] = f"Bearer {await make_key('books:*')}"
        await until_accepted(shelf)
        await until_accepted(shelf, "/v1/notes", 201)
        await asyncio.sleep(SILENCE + 0.2)
        with frozen(stack):
            async with asyncio.timeout(SOON):
                answers = await asyncio.gather(
                    shelf.post("/v1/books", json={"title": "t"}),
                    shelf.post("/v1/books", json={"title": "t"}, headers={"Idempotency-Key": "k"}),
                    shelf.post("/v1/notes", json={"title": "t"}),
                    shelf.post("/v1/notes", json={"title": "t"}, headers={"Idempotency-Key": "k-2"}),
                    shelf.get("/v1/books"),
                    shelf.get("/v1/whoami", headers=unseen),
                )
        for answer in answers:
            assert problem(answer, 503)["code"] == "database-away"
        await until_accepted(shelf)


async def test_postgres_frozen_as_a_key_is_looked_up_is_503_soon_and_holds_up_nobody_afterwards(
    hasty: Settings, make_key: MakeKey, books: None, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.app.SILENCE", 600.0)  # as if Postgres had been heard of just before
    bearers = [{"Authorization": f"Bearer {await make_key()}"} for _ in range(15)]  # more than the pool has connections
    async with client_of(hasty, routers=[router]) as shelf:
        await until_known(shelf, bearers.pop())
        with frozen(stack):
            async with asyncio.timeout(SOON):
                answers = await asyncio.gather(*(shelf.get("/v1/whoami", headers=each) for each in bearers))
        for answer in answers:
            assert problem(answer, 503)["code"] == "database-away"
            assert answer.headers["retry-after"] == "1"
        for each in bearers:
            await until_known(shelf, each)


async def test_a_used_up_pool_is_503_within_the_pool_timeout(
    settings: Settings, make_key: MakeKey, books: None, engine: AsyncEngine
) -> None:
    tight = dataclasses.replace(settings, db_pool_size=2, db_pool_timeout=0.3)
    async with client_of(tight, routers=[router]) as shelf:
        shelf.headers["Authorization"] = f"Bearer {await make_key()}"
        assert (await shelf.get("/v1/whoami")).status_code == 200
        holders = [asyncio.create_task(shelf.get("/v1/sleep")) for _ in range(2)]
        await until_asleep(engine, 2)
        problem(await shelf.post("/v1/books", json={"title": "t"}), 503)
        for holder in holders:
            holder.cancel()
        await asyncio.gather(*holders, return_exceptions=True)
        await until_accepted(shelf)


async def until_asleep(engine: AsyncEngine, count: int) -> None:
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(30)' AND state = 'active'"
    async with asyncio.timeout(25), engine.connect() as connection:
        while (await connection.execute(text(sleeping))).scalar_one() < count:
            await connection.rollback()  # what a transaction saw of the others' activity, it goes on seeing
            await asyncio.sleep(0.02)


async def test_a_locked_table_is_503_after_the_statement_timeout(
    settings: Settings, make_key: MakeKey, books: None, engine: AsyncEngine
) -> None:
    quick = dataclasses.replace(settings, db_statement_timeout=0.5)
    async with client_of(quick, routers=[router]) as shelf, engine.begin() as holder:
        shelf.headers["Authorization"] = f"Bearer {await make_key()}"
        await holder.execute(text("LOCK TABLE books IN ACCESS EXCLUSIVE MODE"))
        for route in ("/v1/books", "/v1/notes"):
            problem(await shelf.post(route, json={"title": "t"}), 503)
        await holder.rollback()
        await until_accepted(shelf)


async def test_redis_down_refuses_nothing(shelf: httpx.AsyncClient, stack: Stack, engine: AsyncEngine) -> None:
    stack.valkey.kill()
    try:
        answers = await asyncio.gather(*(shelf.post("/v1/books", json={"title": "t"}) for _ in range(50)))
        assert {answer.status_code for answer in answers} == {202}
        ready = await shelf.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert not ready.json()["checks"]["redis"]["ok"]
    finally:
        stack.valkey.start()
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM messages"))).scalar_one() == 50


async def test_a_caller_that_leaves_holds_no_connection(
    settings: Settings, make_key: MakeKey, books: None, engine: AsyncEngine
) -> None:
    async with client_of(dataclasses.replace(settings, db_pool_timeout=5.0), routers=[router]) as shelf:
        shelf.headers["Authorization"] = f"Bearer {await make_key('books:*')}"
        for _ in range(settings.db_pool_size + 1):
            job = asyncio.create_task(shelf.get("/v1/sleep"))
            await until_asleep(engine, 1)
            job.cancel()
            await asyncio.gather(job, return_exceptions=True)
        assert (await shelf.post("/v1/notes", json={"title": "t"})).status_code == 201
