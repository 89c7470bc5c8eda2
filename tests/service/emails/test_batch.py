"""A batch is many different mails in one call, none of them second-class."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from service.emails.batch import routes
from service.emails.insert import store
from service.settings import Settings
from tests.service.emails.posting import HELLO, execute_sql, look, mailing_to, post, work


@pytest.fixture
def settings(settings: Settings, mailbox: Any) -> Settings:
    return mailing_to(mailbox, settings)


async def batch(api: httpx.AsyncClient, mails: list[Any], **more: Any) -> httpx.Response:
    headers = more.pop("headers", None)
    return await api.post("/v1/emails/batch", json={"emails": mails, **more}, headers=headers)


async def test_each_mail_of_a_batch_has_all_that_a_single_one_has(api: httpx.AsyncClient, mailbox: Any) -> None:
    at = (datetime.now(UTC) + timedelta(hours=2)).isoformat()
    files = [{"filename": "a.txt", "content": "aGVsbG8=", "content_type": "text/plain"}]
    variables = {"name": "Ada", "course_name": "Tides", "course_url": "https://academy.example/tides"}
    mails = [
        {**HELLO, "attachments": files, "headers": {"X-Order": "7"}, "tags": ["a"], "lane": "critical"},
        {"to": "bob@example.org", "template": {"key": "course_enrollment", "variables": variables}},
        {**HELLO, "scheduled_at": at},
    ]
    answer = await batch(api, mails, headers={"X-Request-ID": "term-1"})
    assert answer.status_code == 202, answer.text
    told = answer.json()
    assert (told["accepted"], told["refused"], told["deduplicated"]) == (3, 0, 0)
    assert [item["status"] for item in told["items"]] == ["queued", "queued", "scheduled"]
    first, second, third = [await look(api, item) for item in told["items"]]
    assert first["attachments"][0]["filename"] == "a.txt"
    assert (first["request_id"], first["lane"], first["tags"]) == ("term-1", "critical", ["a"])
    assert second["template"]["key"] == "course_enrollment"
    assert third["scheduled_at"] is not None
    for item in told["items"][:2]:
        await work(item)
    assert {mail["Subject"] for mail in mailbox.messages} == {"Hello", "You are enrolled in Tides"}
    assert (await look(api, first))["status"] == "sent"


async def test_an_atomic_batch_with_one_bad_mail_stores_nothing_and_names_every_fault(api: httpx.AsyncClient) -> None:
    mails = [HELLO, {**HELLO, "to": "nobody"}, {**HELLO, "lane": "fast"}, 7, {**HELLO, "from": "ceo@bank.example"}]
    answer = await batch(api, mails)
    assert answer.status_code == 422
    pointers = {fault["pointer"] for fault in answer.json()["errors"]}
    assert pointers == {"/emails/1/to", "/emails/2/lane", "/emails/3", "/emails/4/from"}
    assert await execute_sql("SELECT 1 FROM emails UNION ALL SELECT 1 FROM messages") == []


async def test_a_partial_batch_stores_what_it_can_and_tells_the_rest_by_index(api: httpx.AsyncClient) -> None:
    mails = [HELLO, {**HELLO, "to": "nobody"}, {"to": "a@example.org"}, HELLO, {**HELLO, "subject": "nul\u0000"}]
    answer = await batch(api, mails, mode="partial")
    assert answer.status_code == 202
    told = answer.json()
    assert (told["accepted"], told["refused"]) == (2, 3)
    assert [item["index"] for item in told["items"]] == [0, 1, 2, 3, 4]
    assert [item["error"] is None for item in told["items"]] == [True, False, False, True, False]
    bad = told["items"][2]
    assert (bad["id"], bad["error"]["code"]) == (None, "invalid")
    assert {fault["pointer"] for fault in bad["error"]["errors"]} == {"/emails/2/subject", "/emails/2/html"}
    assert len(await execute_sql("SELECT 1 FROM messages")) == 2


async def test_a_batch_is_one_request_to_its_idempotency_key(api: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "marks-of-june"}
    first = await batch(api, [HELLO, HELLO], headers=key)
    again = await batch(api, [HELLO, HELLO], headers=key)
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert len(await execute_sql("SELECT 1 FROM emails")) == 2


async def test_dedup_keys_hold_against_earlier_mails_and_within_the_batch(api: httpx.AsyncClient) -> None:
    earlier = await post(api, dedup_key="marks:1")
    over = await post(api, dedup_key="marks:0", dedup_window=1)
    await execute_sql("UPDATE emails SET dedup_until = clock_timestamp() WHERE dedup_key = 'marks:0'")
    (freed,) = (await api.post("/v1/emails/batch", json={"emails": [{**HELLO, "dedup_key": "marks:0"}]})).json()[
        "items"
    ]
    assert (freed["deduplicated"], freed["id"] == over["id"]) == (False, False)
    mails = [{**HELLO, "dedup_key": key} for key in ("marks:1", "marks:2", "marks:2")]
    told = (await batch(api, mails)).json()
    assert (told["accepted"], told["deduplicated"]) == (1, 2)
    assert told["items"][0]["id"] == earlier["id"]
    assert told["items"][1]["id"] == told["items"][2]["id"]
    assert [item["deduplicated"] for item in told["items"]] == [True, False, True]
    assert len(await execute_sql("SELECT 1 FROM messages")) == 4


async def test_a_mail_is_stored_whose_key_is_let_go_of_while_it_is_asked_for(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await post(api, dedup_key="marks:1")

    async def store_before_another_lets_go(*arguments: Any, **named: Any) -> Any:
        try:
            return await store(*arguments, **named)
        finally:
            await execute_sql("UPDATE emails SET dedup_key = NULL WHERE dedup_until IS NULL AND subject = 'Hello'")

    monkeypatch.setattr(routes, "store", store_before_another_lets_go)
    mails = [{**HELLO, "subject": "Marks", "dedup_key": "marks:1"}] * 2
    told = (await batch(api, mails)).json()
    assert (told["accepted"], told["deduplicated"]) == (1, 1)
    assert told["items"][0]["id"] == told["items"][1]["id"]
    assert len(await execute_sql("SELECT 1 FROM emails JOIN messages USING (id) WHERE subject = 'Marks'")) == 1


async def test_a_thousand_mails_are_one_statement_and_one_more_is_refused(api: httpx.AsyncClient) -> None:
    mails = [{**HELLO, "to": f"user{n}@example.org"} for n in range(1_000)]
    told = (await batch(api, mails)).json()
    assert told["accepted"] == 1_000
    (row,) = await execute_sql("SELECT count(DISTINCT xmin::text) AS statements, count(*) AS mails FROM emails")
    assert (row["statements"], row["mails"]) == (1, 1_000)
    refused = await batch(api, [*mails, HELLO])
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/emails")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [({}, "/emails"), ({"emails": []}, "/emails"), ({"emails": [HELLO], "mode": "some"}, "/mode")],
)
async def test_a_broken_frame_is_refused(api: httpx.AsyncClient, body: dict[str, Any], pointer: str) -> None:
    answer = await api.post("/v1/emails/batch", json=body)
    assert answer.status_code == 422
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]
