"""Users, what they follow, where they belong, how they want to be told: over HTTP."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.users import lookup
from tests.service.conftest import MakeKey

ADA: dict[str, Any] = {
    "email": "Ada <ada@example.com>",
    "locale": "en-GB",
    "timezone": "Europe/London",
    "attributes": {"name": "Ada"},
}


async def pages(api: httpx.AsyncClient, path: str, **more: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: dict[str, Any] = {}
    while True:
        answer = await api.get(path, params={**more, **cursor})
        assert answer.status_code == 200, answer.text
        found += answer.json()["items"]
        if answer.json()["next_cursor"] is None:
            return found
        cursor = {"cursor": answer.json()["next_cursor"]}


async def test_a_user_is_what_the_last_put_said(api: httpx.AsyncClient) -> None:
    first = await api.put("/v1/users/ada", json=ADA)
    assert first.status_code == 200, first.text
    assert {name: first.json()[name] for name in ADA} == ADA
    assert (await api.get("/v1/users/ada")).json() == first.json()
    second = (await api.put("/v1/users/ada", json={"locale": "de"})).json()
    assert (second["email"], second["locale"], second["timezone"], second["attributes"]) == (None, "de", "UTC", {})
    assert second["created_at"] == first.json()["created_at"]
    assert (await api.delete("/v1/users/ada")).status_code == 204
    assert (await api.delete("/v1/users/ada")).status_code == 204
    gone = await api.get("/v1/users/ada")
    assert (gone.status_code, gone.json()["code"]) == (404, "unknown-user")


async def test_every_fault_of_a_user_is_named_at_once(api: httpx.AsyncClient) -> None:
    body = {"email": "a@b.c, d@e.f", "locale": "!", "timezone": "../../etc/passwd", "attributes": {"x": "y" * 70_000}}
    answer = await api.put("/v1/users/ada", json=body)
    assert answer.status_code == 422
    assert {fault["pointer"] for fault in answer.json()["errors"]} == {
        "/email",
        "/locale",
        "/timezone",
        "/attributes",
    }
    assert (await api.put("/v1/users/-oQ", json={})).status_code == 422
    many = await api.post("/v1/users", json={"users": [{"id": "ok"}, {"id": "no/no", "timezone": "Asia/Nowhere"}]})
    pointers = {fault["pointer"].removesuffix("/id") for fault in many.json()["errors"]}
    assert (many.status_code, pointers) == (422, {"/users/1", "/users/1/timezone"})
    assert (await api.get("/v1/users")).json()["items"] == []


async def test_many_users_are_set_at_once_and_listed_in_order(api: httpx.AsyncClient) -> None:
    users = [{"id": f"u{number:03}", "email": f"u{number}@example.com"} for number in range(150)]
    assert (await api.post("/v1/users", json={"users": users})).json() == {"users": 150, "made": 150}
    again = await api.post("/v1/users", json={"users": [*users[:10], users[0], {"id": "zoe"}]})
    assert again.json() == {"users": 11, "made": 1}
    listed = await pages(api, "/v1/users", limit=70)
    assert [user["id"] for user in listed] == [*(user["id"] for user in users), "zoe"]


async def test_what_is_named_first_is_made_and_naming_it_again_changes_nothing(api: httpx.AsyncClient) -> None:
    for _ in range(2):
        assert (await api.put("/v1/topics/python/followers/ada")).status_code == 204
        assert (await api.put("/v1/organizations/acme/members/ada")).status_code == 204
    assert [item["user_id"] for item in await pages(api, "/v1/topics/python/followers")] == ["ada"]
    assert [item["user_id"] for item in await pages(api, "/v1/organizations/acme/members")] == ["ada"]
    assert (await api.get("/v1/users/ada")).json()["email"] is None
    for _ in range(2):
        assert (await api.delete("/v1/topics/python/followers/ada")).status_code == 204
        assert (await api.delete("/v1/organizations/acme/members/ada")).status_code == 204
    assert await pages(api, "/v1/topics/python/followers") == []
    assert await pages(api, "/v1/organizations/acme/members") == []


async def test_an_audience_of_ten_thousand_is_one_call(api: httpx.AsyncClient, engine: AsyncEngine) -> None:
    ids = [f"u{number}" for number in range(10_000)]
    answer = await api.post("/v1/topics/news/followers", json={"users": ids}, timeout=60)
    assert answer.json() == {"users": 10_000, "changed": 10_000}
    again = await api.post("/v1/topics/news/followers", json={"users": ids[:10]})
    assert again.json() == {"users": 10, "changed": 0}
    left = await api.post("/v1/topics/news/followers/remove", json={"users": ["u0", "u1", "nobody"]})
    assert left.json() == {"users": 3, "changed": 2}
    too_many = await api.post("/v1/topics/news/followers", json={"users": [*ids, "one-more"]})
    assert too_many.status_code == 422
    async with engine.connect() as connection:
        tenant_id = (await connection.execute(text("SELECT id FROM tenants"))).scalar_one()
        found: list[str] = []
        after = 0
        while chunk := await lookup.followers(connection, tenant_id, "live", "news", after=after, limit=4_000):
            found += [person.id for person in chunk]
            after = chunk[-1].no
        assert sorted(found) == sorted(set(ids) - {"u0", "u1"})
        person = await lookup.find(connection, tenant_id, "live", "u5")
        assert person is not None
        assert (person.id, person.address) == ("u5", None)
        assert await lookup.find(connection, tenant_id, "test", "u5") is None


async def test_preferences_are_set_as_a_whole(api: httpx.AsyncClient) -> None:
    wanted = {"categories": {"*": {"email": "daily"}, "comments": {"email": "off", "inbox": "immediate"}}}
    assert (await api.put("/v1/users/ada/preferences", json=wanted)).json() == wanted
    assert (await api.get("/v1/users/ada/preferences")).json() == wanted
    assert (await api.put("/v1/users/ada/preferences", json={"categories": {}})).json() == {"categories": {}}
    assert (await api.get("/v1/users/ada/preferences")).json() == {"categories": {}}
    assert (await api.get("/v1/users/bob/preferences")).status_code == 404
    wrong = {"categories": {"a b": {"email": "weekly"}, "c": {"inbox": "daily"}}}
    answer = await api.put("/v1/users/ada/preferences", json=wrong)
    assert answer.status_code == 422


@pytest.mark.parametrize("other", [{"tenant": "others"}, {"mode": "test"}], ids=["another tenant", "a test key"])
async def test_people_of_another_tenant_and_of_a_test_key_are_apart(
    api: httpx.AsyncClient, make_key: MakeKey, other: dict[str, str]
) -> None:
    await api.put("/v1/users/ada", json=ADA)
    await api.put("/v1/topics/python/followers/ada")
    headers = {"Authorization": f"Bearer {await make_key(**other)}"}
    assert (await api.get("/v1/users/ada", headers=headers)).status_code == 404
    assert (await api.get("/v1/users", headers=headers)).json()["items"] == []
    assert (await api.get("/v1/topics/python/followers", headers=headers)).json()["items"] == []
    assert (await api.put("/v1/users/ada", json={"locale": "fr"}, headers=headers)).status_code == 200
    assert (await api.get("/v1/users/ada")).json()["locale"] == "en-GB"


async def test_a_key_needs_the_scope(api: httpx.AsyncClient, make_key: MakeKey) -> None:
    headers = {"Authorization": f"Bearer {await make_key('users:read')}"}
    assert (await api.get("/v1/users", headers=headers)).status_code == 200
    assert (await api.put("/v1/users/ada", json={}, headers=headers)).status_code == 403


CSV = {"Content-Type": "text/csv"}
NDJSON = {"Content-Type": "application/x-ndjson"}


async def test_a_file_is_stored_while_it_still_comes(api: httpx.AsyncClient, engine: AsyncEngine) -> None:
    async def stored() -> int:
        async with engine.connect() as connection:
            found: int = (await connection.execute(text("SELECT count(*) FROM users"))).scalar_one()
            return found

    seen: list[int] = []

    async def file() -> AsyncIterator[bytes]:
        yield b"id,email,locale,team\n"
        for piece in range(5):
            seen.append(await stored())
            yield b"".join(
                b"u%d,u%d@example.com,de,blue\n" % (n, n) for n in range(piece * 1_000, piece * 1_000 + 1_000)
            )

    answer = await api.patch("/v1/users", content=file(), headers=CSV)
    assert answer.json() == {"rows": 5_000, "changed": 5_000, "refused": 0, "errors": []}, answer.text
    assert seen == [0, 1_000, 2_000, 3_000, 4_000]
    user = (await api.get("/v1/users/u77")).json()
    assert (user["email"], user["locale"], user["attributes"]) == ("u77@example.com", "de", {"team": "blue"})
    again = b"id,email,locale,team\nu77,u77@example.com,de,blue\nu78,u78@example.com,de,red\nu79,,,\nnew,,,\n"
    assert (await api.patch("/v1/users", content=again, headers=CSV)).json()["changed"] == 3
    assert (await api.get("/v1/users/u77")).json() == user, "what stays as it is was not touched"


async def test_faulty_rows_are_named_by_line_and_the_others_taken(api: httpx.AsyncClient) -> None:
    rows = (
        '{"id": "ada", "email": "ada@example.com"}',
        '{"id": "b b"}',
        "",
        '{"id": "cem", "email": "no"}',
        '{"no": 1}',
        "[]",
    )
    lines = "\n".join((*rows, '{"id": "ada"}'))
    told = (await api.patch("/v1/users", content=lines, headers=NDJSON)).json()
    assert (told["rows"], told["changed"], told["refused"]) == (6, 1, 4)
    pointers = [fault["pointer"] for fault in told["errors"]]
    assert pointers[:2] == ["/lines/2/id", "/lines/4/email"]
    assert {pointer.split("/")[2] for pointer in pointers} == {"2", "4", "5", "6"}
    assert (await api.get("/v1/users/ada")).json()["email"] is None
    for content, headers, status in (
        (b"email\na@example.com\n", CSV, 400),
        (b"id\nada\n", {"Content-Type": "text/plain"}, 415),
        (b"id\nada\n", {**CSV, "Content-Encoding": "gzip"}, 415),
    ):
        assert (await api.patch("/v1/users", content=content, headers=headers)).status_code == status


@pytest.mark.parametrize("path", ["/v1/topics/python/followers", "/v1/organizations/acme/members"])
async def test_a_file_of_ids_joins_and_leaves_users_as_they_are(api: httpx.AsyncClient, path: str) -> None:
    await api.put("/v1/users/ada", json=ADA)
    rows = b"id\nada\nbob\nada\nno way\n"
    first, second = [(await api.patch(path, content=rows, headers=CSV)).json() for _ in range(2)]
    assert (first["rows"], first["changed"], first["refused"], second["changed"]) == (4, 2, 1, 0)
    assert [fault["pointer"] for fault in first["errors"]] == ["/lines/5/id"]
    assert sorted(item["user_id"] for item in await pages(api, path)) == ["ada", "bob"]
    assert (await api.get("/v1/users/ada")).json()["email"] == ADA["email"]
