"""What can still be changed about a mail that was accepted, and the same mail once more."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from callboard_workers.policy import Done, Ignored
from service.settings import Settings
from tests.service.conftest import MakeKey
from tests.service.emails.posting import HELLO, execute_sql, look, mailing_to, post, work


@pytest.fixture
def settings(settings: Settings, mailbox: Any) -> Settings:
    return mailing_to(mailbox, settings)


def later(**delta: float) -> str:
    return (datetime.now(UTC) + timedelta(**delta)).isoformat()


async def test_a_mail_that_waits_is_moved_and_moved_back(api: httpx.AsyncClient, mailbox: Any) -> None:
    mail = await post(api, scheduled_at=later(hours=2), expires_at=later(hours=5))
    moved = await api.patch(f"/v1/emails/{mail['id']}", json={"scheduled_at": later(hours=4)})
    assert (moved.status_code, moved.json()["status"]) == (200, "scheduled")
    assert moved.json()["scheduled_at"] > mail["scheduled_at"]
    assert isinstance(await work(mail), Ignored)
    too_late = await api.patch(f"/v1/emails/{mail['id']}", json={"scheduled_at": later(hours=6)})
    assert too_late.status_code == 422
    past = await api.patch(f"/v1/emails/{mail['id']}", json={"scheduled_at": later(days=-1)})
    assert past.json()["errors"][0]["pointer"] == "/scheduled_at"
    now = await api.patch(f"/v1/emails/{mail['id']}", json={"scheduled_at": None})
    assert now.json()["status"] == "queued"
    assert isinstance(await work(mail), Done)
    gone = await api.patch(f"/v1/emails/{mail['id']}", json={"scheduled_at": later(hours=1)})
    assert (gone.status_code, gone.json()["code"]) == (409, "not-waiting")
    assert len(mailbox.mails) == 1


async def test_a_queued_mail_can_be_put_off(api: httpx.AsyncClient) -> None:
    mail = await post(api)
    moved = await api.patch(f"/v1/emails/{mail['id']}", json={"scheduled_at": later(hours=1)})
    assert moved.json()["status"] == "scheduled"
    assert isinstance(await work(mail), Ignored)


async def test_an_email_from_a_template_shows_its_subject_once_it_was_rendered(
    api: httpx.AsyncClient, mailbox: Any
) -> None:
    welcome = {"template": {"key": "welcome", "variables": {"name": "Ada"}}, "subject": None, "text": None}
    mail = await post(api, **welcome)
    assert (mail["subject"], (await look(api, mail))["subject"]) == (None, None)
    assert isinstance(await work(mail), Done)
    subject = mailbox.messages[0]["Subject"]
    assert (await look(api, mail))["subject"] == subject != ""
    [listed] = (await api.get("/v1/emails")).json()["items"]
    assert listed["subject"] == subject
    refused = await post(api, **welcome, to="refused@simulator.callboard.test")
    await work(refused)
    failed = await look(api, refused)
    assert (failed["status"], failed["subject"]) == ("failed", subject)


async def test_a_mail_is_sent_once_more_as_a_new_one(api: httpx.AsyncClient, mailbox: Any) -> None:
    files = [{"filename": "a.txt", "content": "aGVsbG8=", "content_type": "text/plain"}]
    mail = await post(api, attachments=files, dedup_key="once", bcc=["hidden@example.org"], tags=["a"])
    early = await api.post(f"/v1/emails/{mail['id']}/resend")
    assert (early.status_code, early.json()["code"]) == (409, "not-resendable")
    await work(mail)
    key = {"Idempotency-Key": "resend-7"}
    first = await api.post(f"/v1/emails/{mail['id']}/resend", headers=key)
    again = await api.post(f"/v1/emails/{mail['id']}/resend", headers=key)
    assert (first.status_code, again.json()) == (202, first.json())
    copy = first.json()
    assert (copy["resend_of"], copy["dedup_key"], copy["status"], copy["tags"]) == (mail["id"], None, "queued", ["a"])
    assert copy["message_id"] != mail["message_id"]
    await work(copy)
    one, two = mailbox.messages
    assert (one["Subject"], one["Message-ID"]) == (two["Subject"], mail["message_id"])
    assert two["Message-ID"] == copy["message_id"]
    assert [part.get_content() for part in two.iter_attachments()] == ["hello"]
    assert mailbox.mails[0].recipients == mailbox.mails[1].recipients
    assert (await look(api, mail))["status"] == "sent"


async def test_sending_an_uncertain_mail_once_more_leaves_the_doubt_where_it_is(api: httpx.AsyncClient) -> None:
    mail = await post(api)
    await execute_sql("UPDATE messages SET state='running', epoch=1, worker='w', lease_until=clock_timestamp()")
    await execute_sql("UPDATE messages SET intent=true")
    await execute_sql("UPDATE messages SET state='uncertain', lease_until=NULL, finished_at=clock_timestamp()")
    assert (await look(api, mail))["status"] == "uncertain"
    copy = (await api.post(f"/v1/emails/{mail['id']}/resend")).json()
    await work(copy)
    assert (await look(api, copy))["status"] == "sent"
    assert (await look(api, mail))["status"] == "uncertain"


async def test_a_copy_inherits_what_is_wanted_of_it_in_doubt(api: httpx.AsyncClient) -> None:
    for policy in ("hold", "resend"):
        mail = await post(api, uncertain=policy)
        await work(mail)
        copy = (await api.post(f"/v1/emails/{mail['id']}/resend")).json()
        sql = "SELECT uncertain_policy FROM messages WHERE id = :id"
        assert (await execute_sql(sql, id=copy["task_id"]))[0]["uncertain_policy"] == policy


async def test_other_tenants_mails_cannot_be_changed_or_copied(api: httpx.AsyncClient, make_key: MakeKey) -> None:
    mail = await post(api)
    other = {"Authorization": f"Bearer {await make_key(tenant='other')}"}
    path = f"/v1/emails/{mail['id']}"
    assert (await api.patch(path, json={"scheduled_at": None}, headers=other)).status_code == 404
    assert (await api.post(f"{path}/resend", headers=other)).status_code == 404


async def test_a_mail_goes_to_the_address_of_a_user_in_the_users_language(api: httpx.AsyncClient, mailbox: Any) -> None:
    user = {"email": "Ada <ada@example.org>", "locale": "de"}
    assert (await api.put("/v1/users/u1", json=user)).status_code < 300
    contents = {"de": {"subject": "Hallo", "html": "<p>x</p>"}, "en": {"subject": "Hello", "html": "<p>x</p>"}}
    assert (await api.put("/v1/templates/hi", json={"contents": contents})).status_code == 200
    await api.post("/v1/templates/hi/publish", json={})
    answer = await api.post("/v1/emails", json={"to": {"user_id": "u1"}, "template": {"key": "hi"}})
    assert answer.status_code == 202, answer.text
    mail = answer.json()
    assert (mail["to"], mail["template"]["locale"]) == (["Ada <ada@example.org>"], "de")
    await work(mail)
    assert mailbox.messages[0]["Subject"] == "Hallo"
    unknown = await api.post("/v1/emails", json={**HELLO, "to": {"user_id": "u2"}})
    assert [fault["pointer"] for fault in unknown.json()["errors"]] == ["/to/user_id"]
    batch = await api.post("/v1/emails/batch", json={"emails": [{**HELLO, "to": {"user_id": "u1"}}]})
    assert batch.json()["accepted"] == 1
