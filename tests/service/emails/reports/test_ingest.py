"""What is heard of a mail moves it on, once; a dead address and a complaint end the mail to it."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from service.settings import Settings
from tests.faults.sink import Rule, Sink
from tests.service.conftest import MakeKey
from tests.service.emails.posting import execute_sql, happened, look, post, work
from tests.service.emails.reports.samples import arf, dsn, qmail


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
            "MAIL_RETURN_PATH": "bounces@callboard.example",
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


def back(sink: Sink, mail: dict[str, Any]) -> str:
    """The address that a bounce of this email goes to: the sender of its envelope."""
    return next(each.sender for each in reversed(sink.mails) if each.message_id == mail["message_id"])


async def suppressed(api: httpx.AsyncClient) -> list[tuple[str, str]]:
    items = (await api.get("/v1/suppressions")).json()["items"]
    return [(item["address"], item["reason"]) for item in items]


async def test_a_hard_bounce_as_a_server_writes_it_ends_the_mail_to_that_address(
    api: httpx.AsyncClient, sink: Sink
) -> None:
    mail = await sent(api, to="Ada <Ada@example.org>")
    to = back(sink, mail)
    (told,) = await forward(api, dsn(mail["message_id"], to=to))
    assert told == {
        "event": "bounced",
        "outcome": "recorded",
        "email_id": mail["id"],
        "recipient": "ada@example.org",
        "suppressed": True,
        "trust": "recipient",
    }
    assert (await look(api, mail))["status"] == "bounced"
    (*_, event) = await happened(api, mail)
    assert event["event"] == "bounced"
    assert event["detail"]["type"] == "hard"
    assert event["detail"]["diagnostic"].startswith("550 5.1.1")
    assert await suppressed(api) == [("ada@example.org", "hard_bounce")]
    (again,) = await forward(api, dsn(mail["message_id"], to=to, received="later, by another way"))
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


async def test_soft_bounces_are_counted_and_the_fifth_ends_the_mail(api: httpx.AsyncClient, sink: Sink) -> None:
    for number in range(1, 6):
        mail = await sent(api)
        await forward(api, dsn(mail["message_id"], status="5.2.2", received="anybody's"))  # does not count
        (told,) = await forward(api, dsn(mail["message_id"], status="5.2.2", to=back(sink, mail)))
        assert told["suppressed"] is (number == 5)
        assert (await look(api, mail))["status"] == "bounced"
    assert await suppressed(api) == [("ada@example.org", "hard_bounce")]


async def test_a_delay_changes_nothing_but_the_events(api: httpx.AsyncClient, sink: Sink) -> None:
    mail = await sent(api)
    await forward(api, dsn(mail["message_id"], action="delayed", status="4.2.0", to=back(sink, mail)))
    assert (await look(api, mail))["status"] == "sent"
    assert (await happened(api, mail))[-1]["event"] == "delayed"
    assert await suppressed(api) == []


async def test_a_complaint_that_hides_the_recipient_is_the_one_recipients(api: httpx.AsyncClient, sink: Sink) -> None:
    mail = await sent(api)
    raw = arf(mail["message_id"], sender=back(sink, mail)).decode()
    answer = await api.post("/v1/inbound/bounces", json={"raw": raw})
    assert answer.json()["items"][0]["recipient"] == "ada@example.org"
    assert (await look(api, mail))["status"] == "complained"
    several = await sent(api, to=["bob@example.org", "grace@example.org"])
    (told,) = await forward(api, arf(several["message_id"], sender=back(sink, several)))
    assert (told["outcome"], told["recipient"], told["suppressed"]) == ("recorded", None, False)


async def test_a_bounce_of_an_old_server_is_understood(api: httpx.AsyncClient, sink: Sink) -> None:
    mail = await sent(api)
    (told,) = await forward(api, qmail(mail["message_id"], to=back(sink, mail)))
    assert (told["outcome"], told["suppressed"]) == ("recorded", True)


async def test_envelope_ids_and_the_address_of_the_bounce_name_the_mail(api: httpx.AsyncClient, sink: Sink) -> None:
    mail = await sent(api)
    (told,) = await forward(api, dsn(to=back(sink, mail).upper(), status="5.2.2"))
    assert (told["email_id"], told["trust"]) == (mail["id"], "recipient")
    tag = back(sink, mail).partition("+")[2].partition("@")[0]
    (told,) = await forward(api, dsn(envelope=tag, action="delayed", status="4.2.0"))
    assert (told["email_id"], told["trust"]) == (mail["id"], "recipient")
    (told,) = await forward(api, dsn(envelope=mail["id"], action="delayed", status="4.2.0"))
    assert (told["email_id"], told["trust"]) == (mail["id"], "none")


@pytest.mark.parametrize("write", [dsn, arf, qmail])
async def test_whoever_has_received_an_email_can_forge_no_report_about_it(
    api: httpx.AsyncClient, sink: Sink, write: Any
) -> None:
    """Its Message-ID is in every copy; so is the return path, which each of several recipients finds in its own."""
    alone = await sent(api)
    several = await sent(api, to=["bob@example.org", "grace@example.org"])
    sink.rules["dot"] = [Rule(accept=True, then="close", times=1)]
    unknown = await sent(api, to=["bob@example.org", "eve@example.org"])
    where = "sender" if write is arf else "to"
    forged = "bounces+" + "a" * 40 + "@callboard.example"
    for mail, address, about, trust in (
        (alone, forged, alone, "none"),
        (alone, "bounces+" + alone["id"].removeprefix("em_") + "@callboard.example", alone, "none"),
        (alone, back(sink, several), several, "email"),
        (several, back(sink, several), several, "email"),
        (unknown, forged, unknown, "none"),
    ):
        recipient = "ada@example.org" if mail is alone else "bob@example.org"
        before = (await look(api, mail))["status"]
        (told,) = await forward(api, write(mail["message_id"], recipient=recipient, **{where: address}))
        assert (told["email_id"], told["trust"], told["suppressed"]) == (about["id"], trust, False)
        event = (await happened(api, about))[-1]
        assert event["event"] in ("unverified_bounced", "unverified_complained")
        assert event["detail"]["trust"] == trust
        assert (await look(api, mail))["status"] == before
    assert await suppressed(api) == []
    assert (await look(api, unknown))["status"] == "uncertain"


async def test_a_report_with_the_tag_that_several_share_proves_that_the_server_accepted_the_email_and_no_more(
    api: httpx.AsyncClient, sink: Sink
) -> None:
    sink.rules["dot"] = [Rule(accept=True, then="close", times=1)]
    mail = await sent(api, to=["bob@example.org", "eve@example.org"])
    assert (await look(api, mail))["status"] == "uncertain"
    (told,) = await forward(api, dsn(mail["message_id"], recipient="bob@example.org", to=back(sink, mail)))
    assert (told["trust"], told["suppressed"]) == ("email", False)
    assert (await look(api, mail))["status"] == "sent"
    assert {each["status"] for each in (await look(api, mail))["recipients"]} == {"sent"}


async def test_the_address_of_one_of_several_recipients_is_verified_by_what_only_its_server_was_told(
    api: httpx.AsyncClient, sink: Sink
) -> None:
    sink.extensions = (*sink.extensions, "DSN")
    mail = await sent(api, to=["bob@example.org", "eve@example.org"])
    lines = [line for line in sink.sessions[-1].lines if line.startswith("RCPT")]
    bob, eve = (line.partition("ORCPT=rfc822;")[2].replace("+2B", "+") for line in lines)
    assert (bob[:4], bob[-12:], len(bob)) == ("bob+", "@example.org", 31)
    forged = bob.replace("bob+", "eve+")  # of what is Bob's own
    (told,) = await forward(api, dsn(recipient="eve@example.org", original=forged, to=back(sink, mail)))
    assert (told["trust"], told["suppressed"]) == ("email", False)
    (told,) = await forward(api, dsn(recipient="eve@elsewhere.example", original=eve, to=back(sink, mail)))
    assert (told["trust"], told["recipient"], told["suppressed"]) == ("recipient", "eve@example.org", True)
    status = {each["address"]: each["status"] for each in (await look(api, mail))["recipients"]}
    assert status == {"bob@example.org": "sent", "eve@example.org": "bounced"}


async def test_a_mail_in_doubt_is_resolved_by_what_is_heard_of_it(api: httpx.AsyncClient, sink: Sink) -> None:
    sink.rules["dot"] = [Rule(accept=True, then="close", times=2)]
    arrived, returned = await sent(api), await sent(api, to="bob@example.org")
    assert {(await look(api, mail))["status"] for mail in (arrived, returned)} == {"uncertain"}
    await forward(api, dsn(arrived["message_id"], action="delivered", status="2.0.0", to=back(sink, arrived)))
    await forward(api, dsn(returned["message_id"], recipient="bob@example.org", to=back(sink, returned)))
    assert (await look(api, arrived))["status"] == "delivered"
    found = await look(api, returned)
    assert found["status"] == "failed"
    assert "5.1.1" in found["error"]["detail"]
    assert await suppressed(api) == [("bob@example.org", "hard_bounce")]
    sink.rules.clear()


SES = "0100018f2b7c9d1e-6a5b4c3d-1234-4cde-8f90-0123456789ab-000000"


@pytest.mark.parametrize("name", ["{}", "<{}@email.amazonses.com>", "<{}@eu-west-1.amazonses.com>"])
async def test_an_email_whose_message_id_amazon_replaced_is_found_by_the_id_in_its_reply(
    api: httpx.AsyncClient, sink: Sink, name: str
) -> None:
    sink.rules["dot"] = [Rule(f"250 Ok {SES}", accept=True, times=1)]
    mail, other = await sent(api), await sent(api)
    told = await tell(api, event="bounced", message_id=name.format(SES), recipient="ada@example.org", type="hard")
    assert (told["outcome"], told["email_id"], told["suppressed"]) == ("recorded", mail["id"], True)
    assert (await look(api, mail))["status"] == "bounced"
    assert (await look(api, other))["status"] == "sent"


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
        "trust": None,
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
