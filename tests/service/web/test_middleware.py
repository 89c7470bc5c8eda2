"""The outermost layer: ids, trace context, keys, one line for each request."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.contextvars import get_contextvars

from callboard_workers.context import Correlation, correlation
from service.access import keys
from service.access.secrets import new_key
from service.core import logging
from tests.service.conftest import MakeKey
from tests.service.web.test_hostile import problem

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The lines of the requests of a test."""
    found: list[dict[str, Any]] = []

    class Keeper:
        def write(self, line: str) -> None:
            found.append(json.loads(line))

    monkeypatch.setattr(logging.lean, "writer", Keeper())
    return found


async def test_a_good_request_id_is_kept_and_a_missing_one_made(shelf: httpx.AsyncClient) -> None:
    given = await shelf.get("/v1/whoami", headers={"X-Request-ID": "shop-1.2_3"})
    assert given.headers.get_list("x-request-id") == ["shop-1.2_3"]
    made = await shelf.get("/health/live")
    assert len(made.headers["x-request-id"]) == 32


async def test_the_origin_reaches_the_messages_of_the_request(shelf: httpx.AsyncClient, engine: AsyncEngine) -> None:
    headers = {"X-Request-ID": "r-1", "traceparent": TRACE, "tracestate": "a=b", "baggage": "user=1"}
    assert (await shelf.post("/v1/books", json={"title": "t"}, headers=headers)).status_code == 202
    async with engine.connect() as connection:
        row = (await connection.execute(text("SELECT request_id, headers FROM messages"))).one()
    assert row.request_id == "r-1"
    assert row.headers["traceparent"] == TRACE
    assert row.headers["tracestate"] == "a=b"
    assert row.headers["baggage"] == "user=1"
    assert row.headers["route"] == "POST /v1/books"
    assert row.headers["tenant_id"]


@pytest.mark.parametrize("bad", ["", "x", TRACE.upper(), TRACE + "-00", "00-" + "0" * 32 + TRACE[35:], TRACE[:-1]])
async def test_a_malformed_trace_context_is_dropped(shelf: httpx.AsyncClient, bad: str) -> None:
    answer = await shelf.get("/v1/whoami", headers={"traceparent": bad, "tracestate": "a=b"})
    assert answer.json()["correlation"].keys() == {"request_id", "tenant_id"}


async def test_nothing_of_a_request_stays_behind(shelf: httpx.AsyncClient) -> None:
    await shelf.get("/v1/whoami", headers={"X-Request-ID": "gone"})
    assert correlation.get() == Correlation()
    assert "request_id" not in get_contextvars()
    assert "tenant" not in get_contextvars()


async def test_each_request_is_one_line_without_its_query_or_key(
    shelf: httpx.AsyncClient, lines: list[dict[str, Any]]
) -> None:
    await shelf.get("/v1/books", params={"title": "secret-title"})
    await shelf.get("/nowhere")
    await shelf.get("/health/live")
    assert [(line["event"], line["status"], line["route"]) for line in lines] == [
        ("request_done", 200, "/v1/books"),
        ("request_done", 404, "unmatched"),
    ]
    assert lines[0].keys() >= {"at", "level", "request_id", "method", "ms", "tenant", "key_id", "component"}
    assert "secret-title" not in json.dumps(lines)
    assert "cb_live_" not in json.dumps(lines)


@pytest.mark.parametrize("name", ["key", "api_key", "access_token"])
async def test_a_key_in_the_address_is_401_and_in_no_log(
    shelf: httpx.AsyncClient, lines: list[dict[str, Any]], make_key: MakeKey, name: str
) -> None:
    key = await make_key()
    problem(await shelf.get("/v1/books", params={name: key}), 401)
    problem(await shelf.get("/v1/books?" + name + "=" + key.replace("_", "%5F")), 401)
    problem(await shelf.get(f"/v1/nothing/{key}"), 404)
    assert key not in json.dumps(lines)
    assert lines[-1]["route"] == "unmatched"


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic Zm9vOmJhcg==",
        "cb_live_x",
        "Bearer cb_live_x",
        "Bearer " + "x" * 5000,
        "Bearer é",
    ],
)
async def test_no_key_or_no_key_of_ours_is_401(shelf: httpx.AsyncClient, header: str) -> None:
    answer = await shelf.get("/v1/books", headers={"Authorization": header.encode("latin-1")})
    problem(answer, 401)
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_broken_checksum_is_refused_without_a_look_at_the_database(
    shelf: httpx.AsyncClient, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def look(self: keys.Keyring, hashed: bytes) -> None:
        looked.append(hashed)

    looked: list[bytes] = []
    monkeypatch.setattr(keys.Keyring, "_look", look)
    key = await make_key()
    problem(
        await shelf.get("/v1/books", headers={"Authorization": f"Bearer {key[:-1]}{'A' if key[-1] != 'A' else 'B'}"}),
        401,
    )
    assert looked == []
    problem(await shelf.get("/v1/books", headers={"Authorization": f"Bearer {new_key('live')}"}), 401)
    assert len(looked) == 1


async def test_a_missing_scope_is_403_and_named(shelf: httpx.AsyncClient, make_key: MakeKey) -> None:
    reader = {"Authorization": f"Bearer {await make_key('books:read')}"}
    assert (await shelf.get("/v1/books", headers=reader)).status_code == 200
    answer = await shelf.post("/v1/books", json={"title": "t"}, headers=reader)
    assert "books:write" in problem(answer, 403)["detail"]


async def test_a_hundred_requests_that_miss_the_cache_ask_once(
    shelf: httpx.AsyncClient, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = 0
    original = keys.Keyring._look

    async def look(self: keys.Keyring, hashed: bytes) -> Any:
        nonlocal looked
        looked += 1
        return await original(self, hashed)

    monkeypatch.setattr(keys.Keyring, "_look", look)
    headers = {"Authorization": f"Bearer {await make_key()}"}
    answers = await asyncio.gather(*(shelf.get("/v1/whoami", headers=headers) for _ in range(100)))
    assert {answer.status_code for answer in answers} == {200}
    assert looked == 1


async def test_options_names_every_method_of_a_path_registered_in_parts(shelf: httpx.AsyncClient) -> None:
    answer = await shelf.options("/v1/books")
    assert (answer.status_code, answer.headers["allow"], answer.content) == (204, "GET, OPTIONS, POST", b"")
