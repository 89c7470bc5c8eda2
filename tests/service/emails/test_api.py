"""The emails API on real Postgres and Valkey."""

import asyncio
import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import event

from callboard_workers.runtime import Runtime
from service.settings import Settings
from tests.service.conftest import MakeKey, client_of
from tests.service.emails.posting import HELLO, execute_sql, happened, look, mailing_to, post, work


@pytest.fixture
def settings(settings: Settings, mailbox: Any) -> Settings:
    return mailing_to(mailbox, settings)


async def test_an_accepted_mail_is_a_whole_object_and_reads_back_the_same(api: httpx.AsyncClient) -> None:
    answer = await api.post(
        "/v1/emails",
        headers={"X-Request-ID": "order-7"},
        json={
            "to": ["Ada <ada@example.org>", "grace@example.org"],
            "cc": '"Hopper, G." <gh@example.org>',
            "bcc": ["hidden@example.org"],
            "reply_to": "help@example.org",
            "subject": "Zoë's order",
            "html": "<p>Hi</p>",
            "text": "Hi",
            "headers": {"X-Order": "7"},
            "tags": ["orders", "eu"],
            "metadata": {"order": 7, "nested": {"a": [1, None, "ü"]}},
            "category": "receipts",
            "lane": "critical",
            "attachments": [{"filename": "../a.txt", "content": "aGVsbG8=", "content_type": "text/plain"}],
        },
    )
    assert answer.status_code == 202
    told = answer.json()
    assert answer.headers["location"] == f"/v1/emails/{told['id']}"
    assert told["id"] == "em_" + told["task_id"].replace("-", "")
    assert told["status"] == "queued"
    assert told["request_id"] == "order-7"
    assert told["message_id"] == f"<{told['task_id']}@callboard.example>"
    assert told["cc"] == ['"Hopper, G." <gh@example.org>']
    assert told["attachments"] == [{"filename": "a.txt", "content_type": "text/plain", "size": 5, "content_id": None}]
    assert (told["attempts"], told["error"], told["mode"], told["lane"]) == (0, None, "live", "critical")
    read = await look(api, told)
    assert read.pop("next_attempt_at")
    told.pop("next_attempt_at")
    assert read == told
    (row,) = await execute_sql("SELECT priority, queue, actor, request_id, state FROM messages")
    assert (row["priority"], row["queue"], row["actor"], row["request_id"]) == (
        0,
        "email",
        "emails.send_email",
        "order-7",
    )


async def test_accepting_costs_one_statement_and_many_at_once_share_it(api: httpx.AsyncClient) -> None:
    await post(api)  # the key is looked up, the statement prepared
    engine = Runtime.of_loop().engine
    assert engine is not None
    async with engine.connect() as connection:
        raw: Any = (await connection.get_raw_connection()).driver_connection
        pool_of_connections = type(raw)
    seen: list[str] = []
    fetch = pool_of_connections.fetch

    async def counted(self: Any, sql: str, *values: Any, **more: Any) -> Any:
        seen.append(sql)
        return await fetch(self, sql, *values, **more)

    checkouts: list[int] = []
    event.listen(engine.sync_engine, "checkout", lambda *_: checkouts.append(1))
    pool_of_connections.fetch = counted
    try:
        await post(api)
        assert (len(seen), len(checkouts)) == (1, 1)
        await asyncio.gather(*(post(api, headers={"Idempotency-Key": str(n)}) for n in range(50)))
    finally:
        pool_of_connections.fetch = fetch
    assert len(seen) < 20
    assert len(checkouts) == len(seen)
    (row,) = await execute_sql("SELECT count(*) AS mails, (SELECT count(*) FROM messages) AS messages FROM emails")
    assert (row["mails"], row["messages"]) == (52, 52)


async def test_a_request_with_many_faults_hears_of_all_of_them(api: httpx.AsyncClient) -> None:
    answer = await api.post(
        "/v1/emails",
        json={"to": ["nobody", 7], "subject": "a\nb", "lane": "fast", "surprise": 1, "template": {"variables": {}}},
    )
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert {fault["pointer"] for fault in answer.json()["errors"]} >= {"/to/1", "/lane", "/surprise", "/template/key"}
    answer = await api.post(
        "/v1/emails", json={"to": ["nobody"], "template": {"key": "course_enrollment"}, "text": "x"}
    )
    assert answer.status_code == 422
    assert {fault["pointer"] for fault in answer.json()["errors"]} == {
        "/to/0",
        "/text",
        "/template/variables/name",
        "/template/variables/course_name",
        "/template/variables/course_url",
    }
    assert await execute_sql("SELECT 1 FROM emails UNION ALL SELECT 1 FROM messages") == []


async def test_a_foreign_sender_is_forbidden(api: httpx.AsyncClient) -> None:
    answer = await api.post("/v1/emails", json={**HELLO, "from": "ceo@bank.example"})
    assert (answer.status_code, answer.json()["code"]) == (403, "sender-not-allowed")


async def test_the_same_idempotency_key_makes_one_mail(api: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "order-7"}
    first = await post(api, headers=key)
    again = await api.post("/v1/emails", json=HELLO, headers=key)
    assert again.json() == first
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["location"] == f"/v1/emails/{first['id']}"
    other = await api.post("/v1/emails", json={**HELLO, "subject": "Other"}, headers=key)
    assert other.status_code == 422
    assert len(await execute_sql("SELECT 1 FROM messages")) == 1


async def test_the_same_dedup_key_answers_with_the_earlier_mail(api: httpx.AsyncClient, make_key: MakeKey) -> None:
    first = await post(api, dedup_key="welcome:7")
    again = await api.post("/v1/emails", json={**HELLO, "subject": "Again", "dedup_key": "welcome:7"})
    assert (again.status_code, again.headers["deduplicated"]) == (200, "true")
    assert again.json()["id"] == first["id"]
    other = {"Authorization": f"Bearer {await make_key(tenant='other')}"}
    stranger = await api.post("/v1/emails", json={**HELLO, "dedup_key": "welcome:7"}, headers=other)
    assert stranger.status_code == 202
    assert len(await execute_sql("SELECT 1 FROM messages")) == 2


async def test_a_dedup_key_with_a_window_is_free_again_when_that_is_over(api: httpx.AsyncClient) -> None:
    first = await post(api, dedup_key="digest", dedup_window=3600)
    within = await api.post("/v1/emails", json={**HELLO, "dedup_key": "digest", "dedup_window": 1})
    assert (within.status_code, within.json()["id"]) == (200, first["id"])
    await execute_sql("UPDATE emails SET dedup_until = clock_timestamp() WHERE dedup_key = 'digest'")
    answers = await asyncio.gather(*[api.post("/v1/emails", json={**HELLO, "dedup_key": "digest"}) for _ in range(5)])
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 200, 202]
    [second] = {answer.json()["id"] for answer in answers}
    assert second != first["id"]
    assert ((await look(api, first))["dedup_key"], (await look(api, {"id": second}))["dedup_key"]) == (None, "digest")
    for_ever = await api.post("/v1/emails", json={**HELLO, "dedup_key": "digest", "dedup_window": 1})
    assert (for_ever.status_code, for_ever.json()["dedup_until"]) == (200, None)
    lonely = await api.post("/v1/emails", json={**HELLO, "dedup_window": 1})
    assert [fault["pointer"] for fault in lonely.json()["errors"]] == ["/dedup_window"]


async def test_a_mail_may_wait_for_thousands_of_years_in_postgres_alone(api: httpx.AsyncClient) -> None:
    mail = await post(api, scheduled_at="9998-12-31T23:59:59Z", expires_at="9998-12-31T23:59:59.5Z")
    assert (mail["status"], mail["scheduled_at"]) == ("scheduled", "9998-12-31T23:59:59Z")
    assert (await look(api, mail))["next_attempt_at"] == "9998-12-31T23:59:59Z"
    assert (await work(mail)).__class__.__name__ == "Ignored"
    moved = await api.patch(f"/v1/emails/{mail['id']}", json={"scheduled_at": "2999-01-01T00:00:00Z"})
    assert (moved.status_code, moved.json()["status"]) == (200, "scheduled")
    assert (await api.post(f"/v1/emails/{mail['id']}/cancel")).json()["status"] == "canceled"


async def test_a_scheduled_mail_waits_says_so_and_can_be_canceled(api: httpx.AsyncClient) -> None:
    at = datetime.now(UTC) + timedelta(hours=2)
    mail = await post(api, scheduled_at=at.isoformat(), expires_at=(at + timedelta(hours=1)).isoformat())
    assert mail["status"] == "scheduled"
    assert (await look(api, mail))["status"] == "scheduled"
    assert (await work(mail)).__class__.__name__ == "Ignored"
    canceled = await api.post(f"/v1/emails/{mail['id']}/cancel")
    assert (canceled.status_code, canceled.json()["status"]) == (200, "canceled")
    again = await api.post(f"/v1/emails/{mail['id']}/cancel")
    assert (again.status_code, again.json()["status"]) == (200, "canceled")
    assert (await work(mail)).__class__.__name__ == "Ignored"
    assert [item["event"] for item in await happened(api, mail)] == ["accepted", "scheduled", "canceled"]


async def test_a_sent_mail_cannot_be_canceled(api: httpx.AsyncClient, mailbox: Any) -> None:
    mail = await post(api)
    await work(mail)
    answer = await api.post(f"/v1/emails/{mail['id']}/cancel")
    assert (answer.status_code, answer.json()["code"]) == (409, "not-cancelable")
    await mailbox.wait(1)


async def test_a_list_pages_filters_and_keeps_to_its_tenant(api: httpx.AsyncClient, make_key: MakeKey) -> None:
    mails = [await post(api, tags=[f"t{n % 2}"]) for n in range(5)]
    several = await post(api, to=["first@example.org", "second@example.org"], headers={"X-Request-ID": "r1"})
    letter = await api.post(
        "/v1/emails", json={"to": "second@example.org", "template": {"key": "welcome", "variables": {"name": "S"}}}
    )
    assert letter.status_code == 202
    later = await post(api, scheduled_at=(datetime.now(UTC) + timedelta(days=1)).isoformat())
    await work(mails[0])

    async def ids(**query: str) -> list[str]:
        answer = await api.get("/v1/emails", params=query)
        assert answer.status_code == 200, answer.text
        return [item["id"] for item in answer.json()["items"]]

    everything = [later["id"], letter.json()["id"], several["id"], *[mail["id"] for mail in reversed(mails)]]
    assert await ids() == everything
    assert await ids(tag="t1") == [mails[3]["id"], mails[1]["id"]]
    assert await ids(to="SECOND@example.org".lower()) == [letter.json()["id"], several["id"]]
    assert await ids(template="welcome") == [letter.json()["id"]]
    assert await ids(request_id="r1") == [several["id"]]
    assert await ids(status="sent") == [mails[0]["id"]]
    assert await ids(status="scheduled") == [later["id"]]
    assert later["id"] not in await ids(status="queued")
    assert await ids(created_after=mails[4]["created_at"], created_before=several["created_at"]) == [mails[4]["id"]]
    seen, cursor = [], None
    while True:
        page = (await api.get("/v1/emails", params={"limit": 3, **({"cursor": cursor} if cursor else {})})).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == everything
    stranger = {"Authorization": f"Bearer {await make_key(tenant='other')}"}
    assert (await api.get("/v1/emails", headers=stranger)).json()["items"] == []
    for path in ("", "/events", "/content"):
        assert (await api.get(f"/v1/emails/{mails[0]['id']}{path}", headers=stranger)).status_code == 404
    assert (await api.post(f"/v1/emails/{later['id']}/cancel", headers=stranger)).status_code == 404
    assert (await look(api, later))["status"] == "scheduled"
    await execute_sql("DELETE FROM messages")  # as pruning does, when they are old
    assert await ids(request_id="r1") == [several["id"]]


async def test_filters_that_cannot_be_read_are_all_named(api: httpx.AsyncClient) -> None:
    answer = await api.get("/v1/emails", params={"status": "gone", "to": "nobody", "created_after": "yesterday"})
    assert answer.status_code == 400
    assert {fault["pointer"] for fault in answer.json()["errors"]} == {"/status", "/to", "/created_after"}


@pytest.mark.parametrize("id", ["em_zz", "nope", "em_" + "0" * 31, "em_" + "F" * 32, "em_" + "0" * 32])
async def test_an_id_of_no_mail_is_404(api: httpx.AsyncClient, id: str) -> None:
    answer = await api.get(f"/v1/emails/{id}")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


async def test_the_content_of_a_mail_is_shown_as_it_is_rendered(api: httpx.AsyncClient) -> None:
    mail = await api.post(
        "/v1/emails", json={"to": "a@example.org", "template": {"key": "welcome", "variables": {"name": "Zoë & Co"}}}
    )
    shown = (await api.get(f"/v1/emails/{mail.json()['id']}/content")).json()
    assert "Zoë & Co" in shown["subject"]
    assert "Zoë &amp; Co" in shown["html"]
    assert "Zoë & Co" in shown["text"]


async def test_templates_are_listed_and_previewed_without_sending(api: httpx.AsyncClient) -> None:
    listed = {item["key"]: item for item in (await api.get("/v1/templates")).json()["items"]}
    assert set(listed) == {
        "certificate", "course_enrollment", "custom", "email_verification", "password_reset", "welcome",
    }  # fmt: skip
    for key, item in listed.items():
        shown = await api.post(f"/v1/templates/{key}/preview", json={"variables": item["example"]})
        assert shown.status_code == 200, shown.text
        assert shown.json()["subject"] == item["subject"]
    missing = await api.post("/v1/templates/course_enrollment/preview", json={})
    assert missing.status_code == 422
    assert {fault["pointer"] for fault in missing.json()["errors"]} == {
        f"/variables/{name}" for name in listed["course_enrollment"]["required"]
    }
    assert (await api.post("/v1/templates/nope/preview", json={})).status_code == 404
    assert await execute_sql("SELECT 1 FROM emails") == []


async def test_send_test_email_answers_with_a_message_and_the_task_id(api: httpx.AsyncClient, mailbox: Any) -> None:
    answer = await api.post("/send-test-email", json={"to": "ada@example.org"})
    assert answer.status_code == 202
    assert set(answer.json()) == {"message", "task_id"}
    await work(answer.json())
    (mail,) = await mailbox.wait(1)
    assert list(mail.recipients) == ["ada@example.org"]
    bare = await api.post("/send-test-email")
    assert bare.status_code == 202
    task = await api.get(bare.headers["location"])
    assert (task.status_code, task.json()["status"]) == (200, "PENDING")
    assert (await api.post("/send-test-email", json={"to": "nobody"})).status_code == 422


@pytest.mark.parametrize(("smtp_mailbox", "status"), [(True, 202), (False, 422)])
async def test_a_bare_send_test_email_works_beside_the_development_mailbox_with_no_sender_set(
    settings: Settings, make_key: MakeKey, mailbox: Any, smtp_mailbox: bool, status: int
) -> None:
    started = dataclasses.replace(settings, mail_from=Settings().mail_from, smtp_mailbox=smtp_mailbox)
    async with client_of(started) as api:
        api.headers["Authorization"] = f"Bearer {await make_key()}"
        bare = await api.post("/send-test-email")
        assert bare.status_code == status, bare.text
        if status == 202:
            await work(bare.json())
            (mail,) = await mailbox.wait(1)
            assert list(mail.recipients) == ["delivered@simulator.callboard.test"]


async def test_send_test_email_goes_to_the_address_in_the_query(api: httpx.AsyncClient, mailbox: Any) -> None:
    queued = await api.post("/send-test-email", params={"email_to": "ada@example.org"})
    assert queued.status_code == 202
    await work(queued.json())
    (mail,) = await mailbox.wait(1)
    assert list(mail.recipients) == ["ada@example.org"]
    both = await api.post("/send-test-email", params={"email_to": "ada@example.org"}, json={"to": "bo@example.org"})
    assert both.status_code == 422
    key = {"Idempotency-Key": "one"}
    assert (await api.post("/send-test-email", params={"email_to": "a@example.org"}, headers=key)).status_code == 202
    other = await api.post("/send-test-email", params={"email_to": "b@example.org"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")


async def test_an_attachment_with_a_parameter_arrives_as_it_was_given(api: httpx.AsyncClient, mailbox: Any) -> None:
    file = {"filename": "invite.ics", "content": "aGVsbG8=", "content_type": "text/calendar; method=REQUEST"}
    queued = await api.post("/v1/emails", json=HELLO | {"attachments": [file]})
    assert queued.status_code == 202
    await work(queued.json())
    (mail,) = await mailbox.wait(1)
    assert b"\r\nContent-Type: text/calendar; method=REQUEST\r\n" in mail.raw


async def test_malformed_and_unknown_ids_have_one_code(api: httpx.AsyncClient) -> None:
    for id in ("em_" + "0" * 32, "em_0", "nonsense"):
        for tail in ("", "/events", "/content"):
            response = await api.get(f"/v1/emails/{id}{tail}")
            assert (response.status_code, response.json()["code"]) == (404, "unknown-email")


async def test_prefer_wait_holds_the_answer_until_the_mail_is_sent(api: httpx.AsyncClient, mailbox: Any) -> None:
    sending = asyncio.create_task(api.post("/v1/emails", json=HELLO, headers={"Prefer": "wait=50"}))
    while not (found := await execute_sql("SELECT id FROM messages")):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await work({"task_id": str(found[0]["id"])})
    answer = await sending
    assert (answer.status_code, answer.json()["status"]) == (200, "sent")
    patient = await api.post("/v1/emails", json=HELLO, headers={"Prefer": "wait=0"})
    assert patient.status_code == 202
    await mailbox.wait(1)


async def test_a_key_needs_the_scope(api: httpx.AsyncClient, make_key: MakeKey) -> None:
    reader = {"Authorization": f"Bearer {await make_key('emails:read')}"}
    assert (await api.post("/v1/emails", json=HELLO, headers=reader)).status_code == 403
    assert (await api.get("/v1/emails", headers=reader)).status_code == 200
    assert (await api.get("/v1/emails", headers={"Authorization": ""})).status_code == 401
