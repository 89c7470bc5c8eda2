"""What a hostile caller sends: every answer is a problem with the right status, nothing is stored, nothing is a 500."""

import re
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.settings import Settings
from service.web.request import LINGER_BYTES
from tests.service.conftest import MakeKey, client_of
from tests.service.web.test_json_body import UNREADABLE

JSON = {"Content-Type": "application/json"}


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body.keys() >= {"type", "title", "status", "detail", "code", "request_id"}
    assert body["status"] == status
    assert body["request_id"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text
    assert "asyncpg" not in answer.text
    return body


@pytest.mark.parametrize("route", ["/v1/books", "/v1/notes"])
async def test_unreadable_bodies_are_400(shelf: httpx.AsyncClient, engine: AsyncEngine, route: str) -> None:
    for name, body in UNREADABLE.items():
        answer = await shelf.post(route, content=body, headers=JSON)
        assert answer.status_code == 400, (name, answer.text)
        problem(answer, 400)
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM books"))).scalar_one() == 0


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b'{"title": "t", "pages": "5"}', "/pages"),
        (b'{"title": 5}', "/title"),
        (b'{"title": ""}', "/title"),
        (b'{"title": "t", "colour": "red"}', "/colour"),
        (b'{"title": "a\\u0000b"}', "/title"),
        (b'{"title": "t", "data": {"deep": [{"x": "\\u0000"}]}}', "/data/deep/0/x"),
        (b'{"title": "t", "pages": 1.5}', "/pages"),
        (b'{"title": "t", "pages": true}', "/pages"),
        (b"{}", "/title"),
    ],
)
async def test_broken_rules_are_422_with_a_pointer(shelf: httpx.AsyncClient, body: bytes, pointer: str) -> None:
    answer = await shelf.post("/v1/books", content=body, headers=JSON)
    assert [fault["pointer"] for fault in problem(answer, 422)["errors"]] == [pointer]


async def test_every_fault_is_named_at_once(shelf: httpx.AsyncClient) -> None:
    answer = await shelf.post("/v1/books", json={"pages": "5", "x": 1, "y": 2, "code": 7})
    found = {fault["pointer"] for fault in problem(answer, 422)["errors"]}
    assert found == {"/title", "/pages", "/x", "/y", "/code"}


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/xml"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": ""},
        {},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        {"Content-Type": "application/json", "Content-Encoding": "br"},
    ],
)
async def test_anything_but_plain_json_is_415(shelf: httpx.AsyncClient, headers: dict[str, str]) -> None:
    problem(await shelf.post("/v1/books", content=b'{"title": "t"}', headers=headers), 415)


@pytest.mark.parametrize(
    "media", ["application/json", "Application/JSON; charset=UTF-8", 'application/json; charset="utf-8"']
)
async def test_json_in_utf8_is_taken(shelf: httpx.AsyncClient, media: str) -> None:
    answer = await shelf.post("/v1/books", content='{"title": "Füße"}'.encode(), headers={"Content-Type": media})
    assert answer.status_code == 202


async def test_a_body_over_the_limit_is_cut_while_it_streams(
    settings: Settings, make_key: MakeKey, books: None
) -> None:
    from tests.service.web.shelf import router

    small = Settings.from_env(
        {"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url, "BODY_LIMIT": "4096"}
    )
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while sent < 100_000_000:
            sent += 1024
            yield b" " * 1024

    async with client_of(small, routers=[router]) as client:
        headers = {"Authorization": f"Bearer {await make_key()}", **JSON}
        problem(await client.post("/v1/books", content=endless(), headers=headers), 413)
        assert sent <= 8192 + LINGER_BYTES
        declared = {**headers, "Content-Length": "30000000"}
        problem(await client.post("/v1/books", content=b"{}", headers=declared), 413)


@pytest.mark.parametrize("kind", ["declared", "chunked", "declared far above"])
async def test_a_body_a_little_over_the_limit_is_taken_whole_before_it_is_refused(
    settings: Settings, make_key: MakeKey, books: None, kind: str
) -> None:
    """Who is cut off while it writes may not come to read why."""
    from tests.service.web.shelf import router

    small = Settings.from_env(
        {"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url, "BODY_LIMIT": "4096"}
    )
    sent, pieces = 0, 20

    async def body() -> Any:
        nonlocal sent
        for _ in range(pieces):
            sent += 65_536
            yield b" " * 65_536

    length = {"declared": pieces * 65_536, "chunked": 0, "declared far above": 4096 + LINGER_BYTES + 1}[kind]
    declared = {"Content-Length": str(length)} if length else {}
    async with client_of(small, routers=[router]) as client:
        headers = {"Authorization": f"Bearer {await make_key()}", **JSON, **declared}
        problem(await client.post("/v1/books", content=body(), headers=headers), 413)
    assert sent == (0 if kind == "declared far above" else pieces * 65_536)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/nothing",
        "/v1/books/../secret",
        "/%2f..%2f..%2fetc/passwd",
        "/v1/%ff%fe",
        "/v1/a%00b",
        "/v1/tasks",
        "/" + "a" * 5000,
    ],
)
async def test_paths_that_lead_nowhere_are_404(shelf: httpx.AsyncClient, path: str) -> None:
    problem(await shelf.get(path), 404)


async def test_a_method_a_path_does_not_take_is_405_with_allow(shelf: httpx.AsyncClient) -> None:
    answer = await shelf.delete("/v1/books")
    problem(answer, 405)
    assert "POST" in answer.headers["allow"]


async def test_strange_methods_are_refused(shelf: httpx.AsyncClient) -> None:
    for method in ("TRACE", "CONNECT", "PROPFIND", "X" * 200):
        problem(await shelf.request(method, "/v1/books"), 405)


@pytest.mark.parametrize("limit", ["0", "-1", "201", "1e3", "1" + "0" * 23, "", "abc", "٣", "1.0", " 5"])
async def test_a_limit_out_of_range_is_400(shelf: httpx.AsyncClient, limit: str) -> None:
    assert problem(await shelf.get("/v1/books", params={"limit": limit}), 400)["code"] == "bad-limit"


@pytest.mark.parametrize("cursor", ["", "x", "AAAA", "!!!", "ü", "a" * 4000, "AAAAAAAAAAAAAAAAAAAAAFsiMSJd"])
async def test_a_made_up_cursor_is_400(shelf: httpx.AsyncClient, cursor: str) -> None:
    assert problem(await shelf.get("/v1/books", params={"cursor": cursor}), 400)["code"] == "bad-cursor"


async def test_a_cursor_is_bound_to_tenant_filter_and_list(shelf: httpx.AsyncClient, make_key: MakeKey) -> None:
    for number in range(3):
        await shelf.post("/v1/books", json={"title": f"t{number}"})
    first = (await shelf.get("/v1/books", params={"limit": "2"})).json()
    cursor = first["next_cursor"]
    rest = (await shelf.get("/v1/books", params={"limit": "2", "cursor": cursor})).json()
    assert [book["title"] for book in first["items"] + rest["items"]] == ["t2", "t1", "t0"]
    assert rest["next_cursor"] is None
    flipped = cursor[:-1] + ("A" if cursor[-1] != "A" else "B")
    problem(await shelf.get("/v1/books", params={"cursor": flipped}), 400)
    problem(await shelf.get("/v1/books", params={"cursor": cursor, "title": "t"}), 400)
    other = {"Authorization": f"Bearer {await make_key(tenant='other')}"}
    problem(await shelf.get("/v1/books", params={"cursor": cursor}, headers=other), 400)


@pytest.mark.parametrize("key", ["", " ", '""', "x" * 256, "a\tb", "caf\xe9", "\x7f"])
async def test_a_malformed_idempotency_key_is_400(shelf: httpx.AsyncClient, key: str) -> None:
    headers = {"Idempotency-Key": key.encode("latin-1")}
    assert problem(await shelf.post("/v1/books", json={"title": "t"}, headers=headers), 400)["code"] == (
        "bad-idempotency-key"
    )


@pytest.mark.parametrize("given", ["x\ny", "\x1b[31mred", "a b", "é", "x" * 65, ""])
async def test_a_request_id_that_could_harm_a_log_is_replaced(shelf: httpx.AsyncClient, given: str) -> None:
    answer = await shelf.get("/v1/whoami", headers={"X-Request-ID": given.encode("latin-1")})
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])


async def test_a_bug_shows_no_internals(shelf: httpx.AsyncClient) -> None:
    answer = await shelf.get("/v1/boom")
    problem(answer, 500)
    assert "hunter2" not in answer.text


async def test_a_host_header_that_is_none_is_400(shelf: httpx.AsyncClient) -> None:
    problem(await shelf.get("/v1/whoami", headers={"Host": "a b\\c"}), 400)
