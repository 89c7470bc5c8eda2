"""`Idempotency-Key` over HTTP, on the batched path (/v1/books) and on the ordinary one (/v1/notes)."""

import asyncio

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.service.conftest import MakeKey
from tests.service.web.test_hostile import problem

ROUTES = pytest.mark.parametrize("route", ["/v1/books", "/v1/notes"])


async def count(engine: AsyncEngine, table: str = "books") -> int:
    async with engine.connect() as connection:
        return int((await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one())


@ROUTES
async def test_the_second_answer_is_the_first_and_says_so(
    shelf: httpx.AsyncClient, engine: AsyncEngine, route: str
) -> None:
    headers = {"Idempotency-Key": "order 1"}
    first = await shelf.post(route, json={"title": "t"}, headers=headers)
    second = await shelf.post(route, json={"title": "t"}, headers={"Idempotency-Key": '"order 1"'})
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert (first.status_code, first.content, first.headers["location"]) == (
        second.status_code,
        second.content,
        second.headers["location"],
    )
    assert await count(engine) == 1


@ROUTES
async def test_another_body_is_422(shelf: httpx.AsyncClient, route: str) -> None:
    headers = {"Idempotency-Key": "k"}
    await shelf.post(route, json={"title": "one"}, headers=headers)
    answer = await shelf.post(route, json={"title": "two"}, headers=headers)
    assert problem(answer, 422)["code"] == "idempotency-key-reused"


async def test_a_key_is_of_one_route(shelf: httpx.AsyncClient) -> None:
    for route, status in (("/v1/books", 202), ("/v1/notes", 422)):
        answer = await shelf.post(route, json={"title": "t"}, headers={"Idempotency-Key": "k"})
        assert answer.status_code == status


@ROUTES
async def test_tenants_do_not_share_keys(
    shelf: httpx.AsyncClient, engine: AsyncEngine, make_key: MakeKey, route: str
) -> None:
    other = {"Authorization": f"Bearer {await make_key(tenant='other')}", "Idempotency-Key": "k"}
    await shelf.post(route, json={"title": "t"}, headers={"Idempotency-Key": "k"})
    answer = await shelf.post(route, json={"title": "t"}, headers=other)
    assert "idempotency-replayed" not in answer.headers
    assert await count(engine) == 2


@ROUTES
async def test_a_test_key_never_gets_the_answer_of_a_live_one(
    shelf: httpx.AsyncClient, engine: AsyncEngine, make_key: MakeKey, route: str
) -> None:
    test = {"Authorization": f"Bearer {await make_key(mode='test')}", "Idempotency-Key": "k"}
    for headers in (test, {"Idempotency-Key": "k"}):
        answer = await shelf.post(route, json={"title": "t"}, headers=headers)
        assert "idempotency-replayed" not in answer.headers
    assert await count(engine) == 2


@ROUTES
async def test_many_at_once_are_one(shelf: httpx.AsyncClient, engine: AsyncEngine, route: str) -> None:
    jobs = [shelf.post(route, json={"title": "t"}, headers={"Idempotency-Key": "k"}) for _ in range(30)]
    answers = await asyncio.gather(*jobs)
    assert await count(engine) == 1
    assert {answer.status_code for answer in answers} <= {201, 202, 409, 503}
    bodies = {answer.content for answer in answers if answer.status_code < 300}
    assert len(bodies) == 1


async def test_one_in_progress_is_409_with_retry_after(
    shelf: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        begun.set()
        await go.wait()

    monkeypatch.setattr("tests.service.web.shelf.slow", slow)
    headers = {"Idempotency-Key": "k"}
    first = asyncio.create_task(shelf.post("/v1/notes", json={"title": "slow"}, headers=headers))
    async with asyncio.timeout(60):
        await begun.wait()
    second = await shelf.post("/v1/notes", json={"title": "slow"}, headers=headers)
    assert problem(second, 409)["code"] == "idempotency-in-progress"
    assert second.headers["retry-after"] == "1"
    go.set()
    assert (await first).status_code == 201


async def test_a_refusal_is_kept_and_what_it_did_is_undone(shelf: httpx.AsyncClient, engine: AsyncEngine) -> None:
    headers = {"Idempotency-Key": "k"}
    first = await shelf.post("/v1/notes", json={"title": "refused"}, headers=headers)
    second = await shelf.post("/v1/notes", json={"title": "refused"}, headers=headers)
    assert problem(first, 409)["detail"] == "Refused."
    assert second.status_code == 409
    assert second.headers["idempotency-replayed"] == "true"
    assert second.headers["content-type"] == "application/problem+json"
    assert await count(engine) == 0


@pytest.mark.parametrize(("title", "status"), [("later", 429), ("broken", 500)])
async def test_429_and_5xx_are_not_kept(shelf: httpx.AsyncClient, engine: AsyncEngine, title: str, status: int) -> None:
    for _ in range(2):
        answer = await shelf.post("/v1/notes", json={"title": title}, headers={"Idempotency-Key": "k"})
        problem(answer, status)
        assert "idempotency-replayed" not in answer.headers
    assert await count(engine, "idempotency_keys") == 0
    assert await count(engine) == 0


@ROUTES
async def test_a_malformed_request_takes_no_key(shelf: httpx.AsyncClient, engine: AsyncEngine, route: str) -> None:
    headers = {"Idempotency-Key": "k"}
    problem(await shelf.post(route, json={"title": 5}, headers=headers), 422)
    assert (await shelf.post(route, json={"title": "t"}, headers=headers)).status_code < 300
    assert await count(engine, "idempotency_keys") == 1


async def test_a_record_conflict_keeps_no_answer(shelf: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await shelf.post("/v1/books", json={"title": "t", "code": "c"}, headers={"Idempotency-Key": "a"})
    answer = await shelf.post("/v1/books", json={"title": "t", "code": "c"}, headers={"Idempotency-Key": "b"})
    problem(answer, 409)
    assert await count(engine, "idempotency_keys") == 1
    assert await count(engine, "messages") == 1
