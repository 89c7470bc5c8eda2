"""Who is suppressed gets no mail: neither what is asked for later nor what waits already."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.emails.load import LOAD
from service.settings import Settings
from tests.faults.sink import Rule, Sink
from tests.service.conftest import MakeKey, client_of
from tests.service.emails.posting import happened, look, post, work


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with Sink() as made:
        yield made


@pytest.fixture
def settings(database: str, redis_url: str, sink: Sink) -> Settings:
    return Settings.from_env(
        {
            "DATABASE_URL": database,
            "REDIS_URL": redis_url,
            "SECRET_KEY": "a secret of tests only",
            "SMTP_HOST": sink.host,
            "SMTP_PORT": str(sink.port),
            "MAIL_FROM": "Callboard <mail@callboard.example>",
        }
    )


async def suppress(api: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await api.post("/v1/suppressions", json=fields)
    assert answer.status_code == 201, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def test_an_address_that_the_server_says_is_not_there_is_suppressed_at_once(
    api: httpx.AsyncClient, sink: Sink
) -> None:
    sink.rules["rcpt"] = [
        Rule("550 5.1.1 unknown", when="Gone@"),
        Rule("550 No such user here", when="nobody@"),
        Rule("550 5.7.1 policy", when="shy@"),
        Rule("550 not now", when="vague@"),
        Rule("452 4.2.2 full", when="full@"),
    ]
    alone = await post(api, to="Gone@Example.org")
    await work(alone)
    assert (await look(api, alone))["status"] == "failed"
    (stands,) = (await api.get("/v1/suppressions")).json()["items"]
    assert (stands["address"], stands["category"], stands["reason"]) == ("gone@example.org", None, "hard_bounce")
    assert (stands["email_id"], stands["note"]) == (alone["id"], "the server said 550 5.1.1")
    both = await post(api, to=["ada@example.org", "nobody@example.org"])
    await work(both)
    assert (await look(api, both))["status"] == "sent"
    for word in ("shy", "vague", "full"):
        await work(await post(api, to=f"{word}@example.org"))
    listed = (await api.get("/v1/suppressions")).json()["items"]
    assert [item["address"] for item in listed] == ["nobody@example.org", "gone@example.org"]
    again = await post(api, to="gone@example.org", lane="critical")
    await work(again)
    assert (await look(api, again))["status"] == "suppressed"


async def test_a_mail_to_a_suppressed_address_is_not_sent_and_says_why(api: httpx.AsyncClient, sink: Sink) -> None:
    waiting = await post(api, to="Ada@Example.org", lane="critical")
    await suppress(api, address="ADA@example.org", reason="hard_bounce")
    await work(waiting)
    found = await look(api, waiting)
    assert (found["status"], found["sent_at"]) == ("suppressed", None)
    assert found["error"] == {
        "code": "suppressed",
        "detail": "every recipient is suppressed: ada@example.org (hard_bounce)",
        "retryable": False,
    }
    accepted, kept = await happened(api, waiting)
    assert (accepted["event"], kept["event"]) == ("accepted", "suppressed")
    assert kept["detail"]["suppressed"] == {"ada@example.org": "hard_bounce"}
    assert sink.mails == []
    task = (await api.get(f"/v1/tasks/{waiting['task_id']}")).json()
    assert task["status"] == "SUCCESS", "there was nothing to do, and that was done"
    listed = (await api.get("/v1/emails", params={"status": "suppressed"})).json()
    assert [mail["id"] for mail in listed["items"]] == [waiting["id"]]


async def test_of_several_recipients_only_the_others_get_the_mail(api: httpx.AsyncClient, sink: Sink) -> None:
    await suppress(api, address="bob@example.org")
    mail = await post(api, to=["ada@example.org", "Bob@example.org"])
    await work(mail)
    assert [sent.recipients for sent in sink.mails] == [["ada@example.org"]]
    assert (await look(api, mail))["status"] == "sent"
    assert (await happened(api, mail))[-1]["detail"]["suppressed"] == {"bob@example.org": "manual"}


async def test_a_category_keeps_back_its_own_mail_only(api: httpx.AsyncClient, sink: Sink) -> None:
    await suppress(api, address="ada@example.org", category="news")
    await suppress(api, address="ada@example.org", category="bulk")
    statuses = {}
    for name, fields in {
        "news": {"category": "news"},
        "bulk": {"lane": "bulk"},
        "course": {"lane": "bulk", "category": "course"},
        "plain": {},
    }.items():
        mail = await post(api, **fields)
        await work(mail)
        statuses[name] = (await look(api, mail))["status"]
    assert statuses == {"news": "suppressed", "bulk": "suppressed", "course": "sent", "plain": "sent"}


async def test_a_suppression_that_is_lifted_lets_mail_through_again(api: httpx.AsyncClient, sink: Sink) -> None:
    made = await suppress(api, address="ada@example.org", note="asked")
    assert (await api.get(f"/v1/suppressions/{made['id']}")).json() == made
    assert (await api.delete(f"/v1/suppressions/{made['id']}")).status_code == 204
    assert (await api.delete(f"/v1/suppressions/{made['id']}")).status_code == 404
    mail = await post(api)
    await work(mail)
    assert (await look(api, mail))["status"] == "sent"


async def test_entering_again_changes_nothing_and_a_key_answers_the_same(api: httpx.AsyncClient) -> None:
    made = await suppress(api, address="ada@example.org", reason="complaint")
    again = await api.post("/v1/suppressions", json={"address": "Ada@example.org"})
    assert (again.status_code, again.json()) == (200, made)
    headers = {"Idempotency-Key": "one"}
    first = await api.post("/v1/suppressions", json={"address": "bob@example.org"}, headers=headers)
    second = await api.post("/v1/suppressions", json={"address": "bob@example.org"}, headers=headers)
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.headers["Idempotency-Replayed"] == "true"
    assert first.json() == second.json()


MANY = """
INSERT INTO suppressions (id, tenant_id, mode, address, reason)
SELECT gen_random_uuid(), t.id, 'live', 'user' || n || '@example.org', 'manual'
FROM tenants t, generate_series(1, 20000) AS n
"""


async def test_suppressions_are_looked_up_by_address_however_many_there_are(
    engine: AsyncEngine, make_key: MakeKey
) -> None:
    await make_key()
    async with engine.connect() as connection:
        for statement in (MANY, "ANALYZE suppressions"):
            await connection.execute(text(statement))
        plan = (await connection.execute(text("EXPLAIN " + LOAD.replace("$1", "ARRAY[gen_random_uuid()]")))).scalars()
        looked = [line.strip() for line in plan if "address" in line]
        assert any(line.startswith("Index Cond") for line in looked), looked


async def test_a_batch_enters_all_or_names_every_fault(api: httpx.AsyncClient) -> None:
    items: list[dict[str, Any]] = [{"address": f"user{n}@example.org", "category": "news"} for n in range(600)]
    answer = await api.post("/v1/suppressions/batch", json={"items": [*items, items[0]]})
    assert (answer.status_code, answer.json()["created"]) == (200, 600)
    assert [item["address"] for item in answer.json()["items"]] == [item["address"] for item in items]
    again = await api.post("/v1/suppressions/batch", json={"items": items})
    assert (again.status_code, again.json()["created"]) == (200, 0)
    wrong = [{"address": "nobody"}, {"address": "x@example.org", "category": "a b"}, {"address": "y@example.org"}]
    refused = await api.post("/v1/suppressions/batch", json={"items": wrong})
    assert refused.status_code == 422
    assert {fault["pointer"] for fault in refused.json()["errors"]} == {"/items/0/address", "/items/1/category"}
    assert (await api.get("/v1/suppressions", params={"address": "y@example.org"})).json()["items"] == []
    for count in (0, 1001):
        refused = await api.post("/v1/suppressions/batch", json={"items": [{"address": "a@example.org"}] * count})
        assert refused.status_code == 422


async def test_the_list_is_walked_by_cursor_and_narrowed(api: httpx.AsyncClient) -> None:
    for n in range(5):
        await suppress(api, address=f"user{n}@example.org", reason="complaint" if n % 2 else "manual")
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = await api.get("/v1/suppressions", params={"limit": 2, **({"cursor": cursor} if cursor else {})})
        seen += [item["address"] for item in page.json()["items"]]
        cursor = page.json()["next_cursor"]
        if cursor is None:
            break
    assert seen == [f"user{n}@example.org" for n in (4, 3, 2, 1, 0)]
    complaints = (await api.get("/v1/suppressions", params={"reason": "complaint"})).json()["items"]
    assert len(complaints) == 2
    wrong = await api.get("/v1/suppressions", params={"reason": "why", "address": "x", "category": "a b"})
    assert wrong.status_code == 400
    assert len(wrong.json()["errors"]) == 3


async def test_tenants_and_modes_know_nothing_of_each_other(
    api: httpx.AsyncClient, settings: Settings, make_key: MakeKey
) -> None:
    made = await suppress(api, address="ada@example.org")
    for key in (await make_key(mode="test"), await make_key(tenant="another")):
        headers = {"Authorization": f"Bearer {key}"}
        assert (await api.get("/v1/suppressions", headers=headers)).json()["items"] == []
        assert (await api.get(f"/v1/suppressions/{made['id']}", headers=headers)).status_code == 404
        assert (await api.delete(f"/v1/suppressions/{made['id']}", headers=headers)).status_code == 404
        mail = await post(api, headers=headers, to="ada@example.org")
        assert mail["status"] == "queued"
    async with client_of(settings) as reader:
        reader.headers["Authorization"] = f"Bearer {await make_key('suppressions:read')}"
        assert (await reader.get("/v1/suppressions")).status_code == 200
        assert (await reader.post("/v1/suppressions", json={"address": "a@b.example"})).status_code == 403
