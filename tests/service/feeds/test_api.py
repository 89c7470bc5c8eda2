"""The feed: pages, counts, marks, and numbers that never let a late one slip in before an early one."""

import asyncio

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.feeds import repository
from tests.service.notifications.conftest import Desk, Sql


async def seqs(desk: Desk, user: str, **more: object) -> list[int]:
    answer = await desk.api.get(f"/v1/users/{user}/feed", params=more)
    assert answer.status_code == 200, answer.text
    return [item["seq"] for item in answer.json()["items"]]


async def test_a_feed_is_read_page_by_page_newest_first(desk: Desk) -> None:
    for number in range(7):
        await desk.deliver(recipients={"users": ["ada"]}, data={"n": number}, category="news", actor="bob")
    first = (await desk.api.get("/v1/users/ada/feed", params={"limit": 4})).json()
    assert [item["seq"] for item in first["items"]] == [7, 6, 5, 4]
    assert (first["counts"], first["last_seq"]) == ({"unread": 7, "unseen": 7}, 7)
    item = first["items"][0]
    assert (item["data"], item["category"], item["actor"], item["read_at"]) == ({"n": 6}, "news", "bob", None)
    rest = (await desk.api.get("/v1/users/ada/feed", params={"cursor": first["next_cursor"]})).json()
    assert ([item["seq"] for item in rest["items"]], rest["next_cursor"]) == ([3, 2, 1], None)
    tampered = await desk.api.get("/v1/users/ada/feed", params={"cursor": first["next_cursor"], "show": "unread"})
    assert (tampered.status_code, tampered.json()["code"]) == (400, "bad-cursor")
    assert (await desk.api.get("/v1/users/nobody/feed")).status_code == 404


async def test_marks_are_set_by_id_or_up_to_a_number_and_may_be_taken_back(desk: Desk) -> None:
    told = [await desk.deliver(recipients={"users": ["ada", "bob"]}) for _ in range(5)]

    async def mark(what: str, **body: object) -> tuple[int, dict[str, int]]:
        answer = await desk.api.post(f"/v1/users/ada/feed/{what}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["changed"], answer.json()["counts"]

    assert await mark("seen", up_to=3) == (3, {"unread": 5, "unseen": 2})
    assert await mark("read", ids=[told[0]["id"], told[4]["id"]]) == (2, {"unread": 3, "unseen": 1})
    assert await mark("read", ids=[told[0]["id"]]) == (0, {"unread": 3, "unseen": 1})
    assert await mark("archive", up_to=2) == (2, {"unread": 2, "unseen": 1})
    assert await seqs(desk, "ada") == [5, 4, 3]
    assert await seqs(desk, "ada", show="unread") == [4, 3]
    assert await seqs(desk, "ada", show="archived") == [2, 1]
    assert await mark("archive", ids=[told[0]["id"]], undo=True) == (1, {"unread": 2, "unseen": 1})
    assert await mark("read", up_to=5, undo=True) == (2, {"unread": 4, "unseen": 1})
    assert (await desk.api.get("/v1/users/bob/feed")).json()["counts"] == {"unread": 5, "unseen": 5}


async def test_a_mark_that_says_nothing_or_too_much_is_refused(desk: Desk) -> None:
    await desk.deliver(recipients={"users": ["ada"]})
    for body, pointer in (
        ({}, ""),
        ({"ids": [], "up_to": 1}, ""),
        ({"ids": ["no_x"]}, "/ids/0"),
        ({"up_to": -1}, "/up_to"),
    ):
        answer = await desk.api.post("/v1/users/ada/feed/read", json=body)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer), body
    assert (await desk.api.post("/v1/users/nobody/feed/read", json={"up_to": 1})).status_code == 404
    assert (await desk.api.get("/v1/users/ada/feed")).json()["counts"]["unread"] == 1


async def test_who_has_seen_a_number_finds_no_smaller_one_that_is_new(desk: Desk, engine: AsyncEngine) -> None:
    """An older notification that is committed after a younger one was read gets a greater number."""
    old, young = [await desk.notify(recipients={"users": ["ada"]}) for _ in range(2)]
    await desk.api.put("/v1/users/ada", json={})
    insert = text(
        "INSERT INTO deliveries (notification_id, user_no, channel, tenant_id)"
        " SELECT n.id, u.no, 'inbox', n.tenant_id FROM notifications n, users u WHERE n.id = :id AND u.id = 'ada'"
    )
    async with engine.connect() as slow, slow.begin():
        await slow.execute(insert, {"id": old["task_id"]})
        await desk.work(young)
        assert await seqs(desk, "ada") == [1]
    assert await seqs(desk, "ada") == [2, 1]
    [late, _] = (await desk.api.get("/v1/users/ada/feed")).json()["items"]
    assert late["id"] == old["id"]


async def test_whoever_looks_at_once_gets_the_same_numbers(desk: Desk, engine: AsyncEngine, sql: Sql) -> None:
    await desk.api.put("/v1/users/ada", json={})
    [row] = await sql("SELECT no FROM users")
    seen: set[tuple[int, str]] = set()

    async def look() -> None:
        newest = 0
        while newest < 12:
            found = await repository.after(engine, row["no"], newest, 100)
            assert found is not None
            if found.items:
                assert [item.seq for item in found.items] == list(range(newest + 1, found.items[-1].seq + 1))
                newest = found.items[-1].seq
            seen.update((item.seq, item.id) for item in found.items)
            await asyncio.sleep(0)

    async def write() -> None:
        for _ in range(3):
            await asyncio.gather(*(desk.deliver(recipients={"users": ["ada"]}) for _ in range(4)))

    async with asyncio.timeout(60):
        await asyncio.gather(write(), look(), look(), look())
    assert sorted(seq for seq, _ in seen) == list(range(1, 13))
    assert len({id for _, id in seen}) == 12


async def test_a_user_who_is_forgotten_leaves_nothing_behind(desk: Desk, sql: Sql) -> None:
    await desk.api.put("/v1/users/ada", json={"email": "ada@example.com"})
    await desk.prefer("ada", any={"email": "daily"})
    await desk.deliver(recipients={"users": ["ada"]}, channels=["inbox", "email"], dedup_key="k")
    assert (await desk.api.delete("/v1/users/ada")).status_code == 204
    for table in ("users", "preferences", "notification_keys", "digests"):
        assert await sql(f"SELECT 1 AS one FROM {table}") == [], table
    assert await sql("SELECT 1 AS one FROM deliveries WHERE channel = 'inbox'") == []
    assert (await desk.api.get("/v1/users/ada/feed")).status_code == 404
