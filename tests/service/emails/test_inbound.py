"""What is heard of a mail moves it on, once; a dead address and a complaint end the mail to it."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from service.settings import Settings
from tests.faults.sink import Rule, Sink
from tests.service.conftest import MakeKey
from tests.service.emails.posting import execute_sql, happened, look, post, work
from tests.service.emails.reports import arf, dsn, qmail


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


async def sent(api: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    mail = await post(api, **fields)
    await work(mail)
    return mail


async def tell(api: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await api.post("/v1/inbound/bounces", json=fields)
    assert answer.status_code == 200, answer.text
    (item,) = answer.json()["items"]
    told: dict[str, Any] = item
    return told


async def forward(api: httpx.AsyncClient, raw: bytes) -> list[dict[str, Any]]:
    answer = await api.post("/v1/inbound/bounces", content=raw, headers={"Content-Type": "message/rfc822"})
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def suppressed(api: httpx.AsyncClient) -> list[tuple[str, str]]:
    items = (await api.get("/v1/suppressions")).json()["items"]
    return [(item["address"], item["reason"]) for item in items]


async def test_a_hard_bounce_as_a_server_writes_it_ends_the_mail_to_that_address(api: httpx.AsyncClient) -> None:
    mail = await sent(api, to="Ada <Ada@example.org>")
    (told,) = await forward(api, dsn(mail["message_id"]))
    assert told == {
        "event": "bounced",
        "outcome": "recorded",
        "email_id": mail["id"],
        "recipient": "ada@example.org",
        "suppressed": True,
    }
    assert (await look(api, mail))["status"] == "bounced"
    (*_, event) = await happened(api, mail)
    assert event["event"] == "bounced"
    assert event["detail"]["type"] == "hard"
    assert event["detail"]["diagnostic"].startswith("550 5.1.1")
    assert await suppressed(api) == [("ada@example.org", "hard_bounce")]
    (again,) = await forward(api, dsn(mail["message_id"], received="later, by another way"))
    assert (again["outcome"], again["suppressed"]) == ("repeated", False)
    following = await sent(api, to="ada@example.org")
    assert (await look(api, following))["status"] == "suppressed"


async def test_a_mail_goes_on_from_sent_to_delivered_to_complained_and_never_back(api: httpx.AsyncClient) -> None:
    mail = await sent(api)
    for event, status in (
        ("delayed", "sent"),
        ("delivered", "delivered"),
        ("complained", "complained"),
        ("bounced", "complained"),
        ("delivered", "complained"),
    ):
        told = await tell(api, event=event, email_id=mail["id"], event_id=f"{event}-{status}")
        assert told["outcome"] == "recorded"
        assert (await look(api, mail))["status"] == status
    events = [item["event"] for item in await happened(api, mail)]
    assert events == ["accepted", "sent", "delayed", "delivered", "complained", "bounced", "delivered"]
    assert await suppressed(api) == [("ada@example.org", "complaint")]
    listed = (await api.get("/v1/emails", params={"status": "complained"})).json()["items"]
    assert [item["id"] for item in listed] == [mail["id"]]


async def test_the_same_event_is_told_once_however_it_is_named(api: httpx.AsyncClient) -> None:
    mail = await sent(api)
    first = await tell(api, event="bounced", email_id=mail["id"], type="soft", event_id="evt_1")
    second = await tell(api, event="bounced", message_id=mail["message_id"], type="soft", event_id="evt_1")
    assert (first["outcome"], second["outcome"]) == ("recorded", "repeated")
    for expected in ("recorded", "repeated"):
        told = await tell(api, event="complained", message_id=mail["message_id"])
        assert told["outcome"] == expected
    assert [item["event"] for item in await happened(api, mail)] == ["accepted", "sent", "bounced", "complained"]


async def test_soft_bounces_are_counted_and_the_fifth_ends_the_mail(api: httpx.AsyncClient) -> None:
    for number in range(1, 6):
        mail = await sent(api)
        (told,) = await forward(api, dsn(mail["message_id"], status="5.2.2"))
        assert told["suppressed"] is (number == 5)
        assert (await look(api, mail))["status"] == "bounced"
    assert await suppressed(api) == [("ada@example.org", "hard_bounce")]


async def test_a_delay_changes_nothing_but_the_events(api: httpx.AsyncClient) -> None:
    mail = await sent(api)
    await forward(api, dsn(mail["message_id"], action="delayed", status="4.2.0"))
    assert (await look(api, mail))["status"] == "sent"
    assert (await happened(api, mail))[-1]["event"] == "delayed"
    assert await suppressed(api) == []


async def test_a_complaint_that_hides_the_recipient_is_the_one_recipients(api: httpx.AsyncClient) -> None:
    mail = await sent(api)
    raw = arf(mail["message_id"]).decode()
    answer = await api.post("/v1/inbound/bounces", json={"raw": raw})
    assert answer.json()["items"][0]["recipient"] == "ada@example.org"
    assert (await look(api, mail))["status"] == "complained"
    several = await sent(api, to=["bob@example.org", "grace@example.org"])
    (told,) = await forward(api, arf(several["message_id"]))
    assert (told["outcome"], told["recipient"], told["suppressed"]) == ("recorded", None, False)


async def test_a_bounce_of_an_old_server_is_understood(api: httpx.AsyncClient) -> None:
    mail = await sent(api)
    (told,) = await forward(api, qmail(mail["message_id"]))
    assert (told["outcome"], told["suppressed"]) == ("recorded", True)


async def test_envelope_ids_and_the_address_of_the_bounce_name_the_mail(api: httpx.AsyncClient) -> None:
    mail = await sent(api)
    hex_id = mail["id"].removeprefix("em_")
    (told,) = await forward(api, dsn(to=f"bounces+{hex_id}@callboard.example", status="5.2.2"))
    assert told["email_id"] == mail["id"]
    (told,) = await forward(api, dsn(envelope=mail["id"], action="delayed", status="4.2.0"))
    assert told["email_id"] == mail["id"]


async def test_a_mail_in_doubt_is_resolved_by_what_is_heard_of_it(api: httpx.AsyncClient, sink: Sink) -> None:
    sink.rules["dot"] = [Rule(accept=True, then="close", times=2)]
    arrived, returned = await sent(api), await sent(api, to="bob@example.org")
    assert {(await look(api, mail))["status"] for mail in (arrived, returned)} == {"uncertain"}
    await forward(api, dsn(arrived["message_id"], action="delivered", status="2.0.0"))
    await forward(api, dsn(returned["message_id"], recipient="bob@example.org"))
    assert (await look(api, arrived))["status"] == "delivered"
    found = await look(api, returned)
    assert found["status"] == "failed"
    assert "5.1.1" in found["error"]["detail"]
    assert await suppressed(api) == [("bob@example.org", "hard_bounce")]
    sink.rules.clear()


async def test_a_report_that_comes_before_the_worker_has_written_down_its_success_is_kept(
    api: httpx.AsyncClient,
) -> None:
    mail = await post(api)
    await tell(api, event="delivered", email_id=mail["id"])
    assert (await look(api, mail))["status"] == "queued"
    await work(mail)
    assert (await look(api, mail))["status"] == "delivered"


async def test_reports_of_other_tenants_mails_and_of_none_change_nothing(
    api: httpx.AsyncClient, make_key: MakeKey
) -> None:
    mail = await sent(api)
    other = {"Authorization": f"Bearer {await make_key(tenant='another')}"}
    answer = await api.post(
        "/v1/inbound/bounces", json={"event": "bounced", "message_id": mail["message_id"]}, headers=other
    )
    assert answer.json()["items"][0] == {
        "event": "bounced",
        "outcome": "unknown",
        "email_id": None,
        "recipient": None,
        "suppressed": False,
    }
    mine = {"Authorization": f"Bearer {await make_key(mode='test')}"}
    told = await api.post("/v1/inbound/bounces", json={"event": "complained", "email_id": mail["id"]}, headers=mine)
    assert told.json()["items"][0]["outcome"] == "unknown", "a test key says nothing of live mail"
    assert (await look(api, mail))["status"] == "sent"
    assert (await tell(api, event="bounced", message_id="<x@y.example>"))["outcome"] == "unknown"
    assert await execute_sql("SELECT * FROM email_events") == []


async def test_what_cannot_be_read_is_refused_with_every_fault(api: httpx.AsyncClient) -> None:
    for body, pointers in (
        ({}, {"/event", "/email_id"}),
        ({"event": "bounced", "email_id": "x", "status": "bad", "recipient": "nobody"}, {"/status", "/recipient"}),
        ({"event": "delivered", "email_id": "x", "type": "hard"}, {"/type"}),
        ({"raw": "Subject: hello\r\n\r\nnothing"}, {"/raw"}),
        ({"raw": "x", "event": "bounced"}, {"/event"}),
    ):
        answer = await api.post("/v1/inbound/bounces", json=body)
        assert answer.status_code == 422, answer.text
        assert {fault["pointer"] for fault in answer.json()["errors"]} == pointers
    wrong = await api.post("/v1/inbound/bounces", content=b"x", headers={"Content-Type": "text/plain"})
    assert wrong.status_code == 415
    none = await api.post("/v1/inbound/bounces", content=b"hello", headers={"Content-Type": "message/rfc822"})
    assert none.status_code == 422
