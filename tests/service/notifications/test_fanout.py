"""Whom a notification reaches: everybody once, whatever the routes, the chunks, the crashes and the repetitions."""

import asyncio
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.policy import Done
from service.notifications import fanout
from service.notifications.models import ACTOR
from tests.service.conftest import MakeKey
from tests.service.notifications.conftest import Desk, Sql, desk_of

REACHED = """
SELECT u.id, d.channel, count(*) AS times FROM deliveries d JOIN users u ON u.no = d.user_no
GROUP BY u.id, d.channel ORDER BY u.id, d.channel
"""


async def reached(sql: Sql, channel: str = "inbox") -> list[str]:
    rows = await sql(REACHED)
    assert {row["times"] for row in rows} <= {1}
    return [row["id"] for row in rows if row["channel"] == channel]


def channel(told: dict[str, Any], name: str) -> dict[str, Any]:
    """The counts of a channel that are not 0."""
    return {key: count for key, count in told["counts"]["channels"][name].items() if count}


async def test_what_is_told_at_acceptance_is_what_is_stored(desk: Desk) -> None:
    told = await desk.notify(recipients={"users": ["ada"]}, data={"title": "Hello"}, actor="bob", category="news")
    assert told["status"] == "queued"
    assert told["id"] == "no_" + told["task_id"].replace("-", "")
    assert await desk.read(told) == told
    [listed] = (await desk.api.get("/v1/notifications")).json()["items"]
    assert listed == {**told, "counts": listed["counts"]}


async def test_somebody_reached_by_several_routes_gets_one(desk: Desk, sql: Sql) -> None:
    await desk.follow("python", "ada", "bob")
    await desk.follow("writing", "ada", "cem")
    await desk.api.put("/v1/organizations/acme/members/ada")
    await desk.api.put("/v1/organizations/acme/members/dan")
    routes = {"users": ["ada", "eve"], "topics": ["python", "writing", "nobody-follows"], "organization": "acme"}
    told = await desk.deliver(recipients=routes, exclude=["bob", "nobody"])
    assert await reached(sql) == ["ada", "cem", "dan", "eve"]
    assert told["status"] == "completed"
    counts = told["counts"]
    assert {name: counts[name] for name in ("resolved", "overlapping", "excluded", "deduplicated")} == {
        "resolved": 5,
        "overlapping": 3,
        "excluded": 1,
        "deduplicated": 0,
    }
    assert channel(told, "inbox") == {"delivered": 4}
    assert told["progress"] == {"done": 8, "total": 8}


async def test_chunks_meet_without_a_gap_and_without_an_overlap(desk: Desk, sql: Sql, engine: AsyncEngine) -> None:
    everybody = [f"u{number:03}" for number in range(100)]
    await desk.follow("a", *everybody[:70])
    await desk.follow("b", *everybody[30:])
    told = await desk.notify(recipients={"topics": ["a", "b"], "users": everybody[::7]})
    id = UUID(told["task_id"])
    assert await fanout.begin(engine, id) == 70 + 70 + 15
    sizes = []
    while (served := await fanout.serve(engine, id, None, size=9)) is not None:
        sizes.append(served.done)
    assert sizes[-1] == 70 + 70 + 15
    assert len(sizes) == 12
    assert await reached(sql) == everybody
    assert await fanout.serve(engine, id, None, size=9) is None


async def test_two_workers_on_one_notification_serve_nobody_twice(desk: Desk, sql: Sql, engine: AsyncEngine) -> None:
    await desk.follow("a", *(f"u{number}" for number in range(200)))
    told = await desk.notify(recipients={"topics": ["a"]})
    id = UUID(told["task_id"])

    async def go_on() -> None:
        while await fanout.serve(engine, id, None, size=10) is not None:
            pass

    await asyncio.gather(*(go_on() for _ in range(4)))
    assert len(await reached(sql)) == 200
    assert (await desk.read(told))["counts"]["resolved"] == 200


async def test_a_repetition_within_its_window_reaches_only_who_was_not_told(desk: Desk, sql: Sql) -> None:
    await desk.follow("a", "ada", "bob")
    same = {"dedup_key": "prompt-1", "dedup_window": 3600}
    await desk.deliver(recipients={"topics": ["a"]}, **same)
    await desk.follow("a", "cem")
    again = await desk.deliver(recipients={"topics": ["a"]}, **same)
    assert (again["counts"]["resolved"], again["counts"]["deduplicated"]) == (3, 2)
    assert channel(again, "inbox") == {"delivered": 1}
    assert await reached(sql) == ["ada", "bob", "cem"]
    await sql("UPDATE notification_keys SET until = clock_timestamp() - interval '1 s'")
    later = await desk.deliver(recipients={"topics": ["a"]}, **same)
    assert later["counts"]["deduplicated"] == 0
    other = await desk.deliver(recipients={"topics": ["a"]}, dedup_key="prompt-2")
    assert other["counts"]["deduplicated"] == 0
    for_ever = await desk.deliver(recipients={"topics": ["a"]}, dedup_key="prompt-2")
    assert for_ever["counts"]["deduplicated"] == 3


async def test_at_once_under_one_key_each_person_is_told_once(desk: Desk, sql: Sql) -> None:
    await desk.follow("a", *(f"u{number}" for number in range(50)))
    both = [await desk.notify(recipients={"topics": ["a"]}, dedup_key="k", dedup_window=60) for _ in range(4)]
    await asyncio.gather(*(desk.work(told) for told in both))
    counts = [(await desk.read(told))["counts"] for told in both]
    assert sum(count["channels"]["inbox"]["delivered"] for count in counts) == 50
    assert sum(count["deduplicated"] for count in counts) == 150
    assert len(await reached(sql)) == 50


async def test_preferences_decide_by_category_and_channel_and_critical_goes_over_them(desk: Desk, sql: Sql) -> None:
    users = [{"id": id, "email": f"{id}@example.com"} for id in ("ada", "bob", "cem", "dan")]
    await desk.api.post("/v1/users", json={"users": [*users, {"id": "eve"}]})
    await desk.prefer("ada", any={"email": "off"})
    await desk.prefer("bob", any={"email": "off", "inbox": "off"}, news={"email": "immediate"})
    await desk.prefer("cem", news={"inbox": "off", "email": "daily"}, any={"email": "immediate"})
    to = {"recipients": {"users": ["ada", "bob", "cem", "dan", "eve"]}, "channels": ["inbox", "email"]}
    told = await desk.deliver(**to, category="news")
    assert channel(told, "inbox") == {"delivered": 3, "muted": 2}
    assert channel(told, "email") == {
        "queued": 2,
        "muted": 1,
        "collected": 1,
        "unreachable": 1,
        "states": {"queued": 2},
    }
    other = await desk.deliver(**to, category="comments")
    assert channel(other, "inbox") == {"delivered": 4, "muted": 1}
    assert {name: channel(other, "email")[name] for name in ("queued", "muted")} == {"queued": 2, "muted": 2}
    critical = await desk.deliver(**to, category="news", critical=True)
    assert channel(critical, "inbox") == {"delivered": 5}
    assert {name: channel(critical, "email")[name] for name in ("queued", "unreachable")} == {
        "queued": 4,
        "unreachable": 1,
    }


async def test_mails_are_mails_like_any_other(desk: Desk, sql: Sql) -> None:
    await desk.api.put("/v1/users/ada", json={"email": "Ada <ada@example.com>", "locale": "en"})
    await desk.api.put("/v1/users/bob", json={"email": "bob@example.com"})
    await desk.api.post("/v1/suppressions", json={"address": "bob@example.com"})
    data = {"title": "A new\n prompt", "body": "Ada shared it.", "url": "https://prompts.example/1"}
    told = await desk.deliver(
        "prompt.published", recipients={"users": ["ada", "bob"]}, channels=["email"], data=data, category="prompts"
    )
    assert channel(told, "email")["queued"] == 1
    assert channel(told, "email")["suppressed"] == 1
    [mail] = (await desk.api.get("/v1/emails")).json()["items"]
    assert (mail["to"], mail["category"], mail["status"]) == (["Ada <ada@example.com>"], "prompts", "queued")
    assert mail["request_id"] == told["request_id"]
    assert mail["metadata"] == {"notification_id": told["id"]}
    assert mail["message_id"].startswith(f"<{mail['task_id']}@")
    content = (await desk.api.get(f"/v1/emails/{mail['id']}/content")).json()
    assert content["subject"] == "A new prompt"
    assert "https://prompts.example/1" in content["html"]
    [message] = await sql("SELECT * FROM messages WHERE actor = 'emails.send_email'")
    [same] = await sql("SELECT * FROM deliveries WHERE channel = 'email'")
    assert str(message["id"]) == mail["task_id"] == str(same["email_id"])
    assert message["args"] == [[mail["task_id"]], {}]
    assert message["headers"]["tenant_id"] == str(message["tenant_id"])
    rung = [each for each in desk.runtime.publisher.rung if each.actor == "emails.send_email"]  # type: ignore[attr-defined]
    assert [str(each.id) for each in rung] == [mail["task_id"]]


async def test_the_story_of_the_request_tells_whom_it_reached(desk: Desk) -> None:
    told = await desk.deliver(recipients={"users": ["ada", "bob"]}, exclude=["bob"])
    story = (await desk.api.get(f"/v1/requests/{told['request_id']}")).json()
    events = {event["what"]: event for event in story["events"]}
    assert {"notification_accepted", "notification_delivered"} <= set(events)
    assert events["notification_delivered"]["detail"] == {"resolved": 2, "excluded": 1, "inbox_delivered": 1}


async def test_a_mail_of_its_own_is_checked_like_any_other(desk: Desk) -> None:
    wrong = {"template": {"key": "welcome", "variables": {}}}
    body = {"type": "t", "recipients": {"users": ["ada"]}, "channels": ["email"], "email": wrong}
    answer = await desk.api.post("/v1/notifications", json=body)
    assert answer.status_code == 422
    assert {fault["pointer"] for fault in answer.json()["errors"]} == {"/email/template/variables/name"}
    own = {"subject": "Hello", "text": "There."}
    await desk.api.put("/v1/users/ada", json={"email": "ada@example.com"})
    told = await desk.deliver(recipients={"users": ["ada"]}, channels=["email"], email=own)
    assert channel(told, "email")["queued"] == 1
    [mail] = (await desk.api.get("/v1/emails")).json()["items"]
    assert mail["subject"] == "Hello"


async def test_where_mail_is_off_only_the_inbox_is_served(api: httpx.AsyncClient, engine: AsyncEngine) -> None:
    async with desk_of(api, engine, EMAIL_ENABLED="false") as desk:
        await api.put("/v1/users/ada", json={"email": "ada@example.com"})
        told = await desk.deliver(recipients={"users": ["ada"]}, channels=["inbox", "email"])
    assert (channel(told, "inbox"), channel(told, "email")) == ({"delivered": 1}, {"disabled": 1})
    assert (await api.get("/v1/emails")).json()["items"] == []


async def test_every_fault_of_a_request_is_named_at_once(desk: Desk) -> None:
    body = {
        "type": "a b",
        "recipients": {},
        "exclude": ["-x"],
        "channels": [],
        "dedup_window": 5,
        "category": "",
        "email": {"subject": "x"},
    }
    answer = await desk.api.post("/v1/notifications", json=body)
    assert answer.status_code == 422
    pointers = {fault["pointer"] for fault in answer.json()["errors"]}
    assert pointers == {"/type", "/recipients", "/exclude/0", "/channels", "/dedup_window", "/category", "/email"}
    shape = await desk.api.post(
        "/v1/notifications", json={"type": "t", "recipients": {"users": [1]}, "channels": ["sms"]}
    )
    assert {fault["pointer"] for fault in shape.json()["errors"]} == {"/recipients/users/0", "/channels/0"}
    assert (await desk.api.get("/v1/notifications/no_1")).status_code == 404
    assert (await desk.api.get(f"/v1/notifications/no_{0:032}")).json()["code"] == "unknown-notification"


async def test_the_same_key_is_the_same_notification(desk: Desk) -> None:
    body = {"type": "t", "recipients": {"users": ["ada"]}}
    first, second = [
        await desk.api.post("/v1/notifications", json=body, headers={"Idempotency-Key": "once"}) for _ in range(2)
    ]
    assert (first.json(), second.headers["Idempotency-Replayed"]) == (second.json(), "true")
    assert len((await desk.api.get("/v1/notifications")).json()["items"]) == 1


async def test_a_test_key_reaches_only_test_people(desk: Desk, sql: Sql, make_key: MakeKey) -> None:
    await desk.follow("a", "ada")
    desk.api.headers["Authorization"] = f"Bearer {await make_key(mode='test')}"
    await desk.follow("a", "tess")
    told = await desk.deliver(recipients={"topics": ["a"], "users": ["ada"]})
    assert (told["mode"], told["counts"]["resolved"]) == ("test", 2)
    rows = await sql("SELECT u.id, u.mode FROM deliveries d JOIN users u ON u.no = d.user_no ORDER BY u.id")
    assert rows == [{"id": "ada", "mode": "test"}, {"id": "tess", "mode": "test"}]


async def test_a_chunk_that_fails_leaves_nothing_and_is_done_by_the_next_attempt(
    desk: Desk, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout.serve, "__defaults__", (10,))
    await desk.follow("a", *(f"u{number}" for number in range(35)))
    await sql("ALTER TABLE deliveries ADD CONSTRAINT few CHECK (user_no % 25 <> 0) NOT VALID")
    told = await desk.notify(recipients={"topics": ["a"]})
    outcome = await desk.work(told)
    assert not isinstance(outcome, Done)
    halfway = await desk.read(told)
    assert halfway["status"] == "processing"
    assert halfway["counts"]["resolved"] == len(await reached(sql))
    assert 0 < halfway["counts"]["resolved"] < 35
    await sql("ALTER TABLE deliveries DROP CONSTRAINT few")
    await sql("UPDATE messages SET due_at = clock_timestamp() WHERE actor = :actor", actor=ACTOR)
    assert isinstance(await desk.work(told), Done)
    assert len(await reached(sql)) == 35
    assert (await desk.read(told))["status"] == "completed"


async def test_a_mark_that_was_set_back_makes_nobody_get_it_twice(desk: Desk, sql: Sql, engine: AsyncEngine) -> None:
    await desk.follow("a", *(f"u{number}" for number in range(20)))
    told = await desk.notify(recipients={"topics": ["a"]})
    id = UUID(told["task_id"])
    await fanout.serve(engine, id, None, size=8)
    await sql("UPDATE notifications SET after_no = 0")
    assert isinstance(await desk.work(told), Done)
    assert len(await reached(sql)) == 20
    assert channel(await desk.read(told), "inbox") == {"delivered": 20}


async def test_only_the_commit_of_a_chunk_does_not_wait_for_the_disk(desk: Desk, sql: Sql, engine: AsyncEngine) -> None:
    await desk.follow("a", "ada")
    told = await desk.notify(recipients={"topics": ["a"]})
    connections = [await engine.connect() for _ in range(engine.pool.size() - 1)]  # type: ignore[attr-defined]
    assert await fanout.serve(engine, UUID(told["task_id"]), None) is not None
    assert await sql("SHOW synchronous_commit") == [{"synchronous_commit": "on"}]
    for connection in connections:
        await connection.close()


@pytest.mark.parametrize("wishes", [1, 9])
async def test_wishes_are_heard_whether_few_or_most_have_some(desk: Desk, sql: Sql, wishes: int) -> None:
    everybody = [f"u{number}" for number in range(10)]
    await desk.follow("a", *everybody)
    many = {name: {"email": "off", "inbox": "immediate"} for name in ("comments", "likes")}
    for id in everybody[:wishes]:
        await desk.prefer(id, any={"inbox": "off"}, **many)
    told = await desk.deliver(recipients={"topics": ["a"]}, category="news")
    assert channel(told, "inbox") == {"delivered": 10 - wishes, "muted": wishes}
    assert await reached(sql) == everybody[wishes:]
    counts = told["counts"]
    assert (counts["resolved"], counts["overlapping"]) == (10, 0)
