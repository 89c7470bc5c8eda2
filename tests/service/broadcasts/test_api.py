"""One template to many, each address once: expanded, throttled, paused, corrected, resumed, canceled."""

import asyncio
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.execution.attempt import execute
from callboard_workers.message import Delivery
from callboard_workers.policy import Done, Outcome, Snoozed
from callboard_workers.runtime import Runtime
from service.broadcasts import repository
from tests.service.conftest import MakeKey, working
from tests.service.emails.posting import execute_sql

TEMPLATE = {"key": "welcome", "variables": {"product_name": "Harbour"}}


def people(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"to": f"user{n}@example.org", "variables": {"name": f"User {n}"}} for n in range(start, start + count)]


async def ask(api: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await api.post("/v1/emails/bulk", json={"template": TEMPLATE, **fields})
    assert answer.status_code == 202, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def look(api: httpx.AsyncClient, bulk: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = (await api.get(f"/v1/bulk/{bulk['id']}")).json()
    return told


async def command(api: httpx.AsyncClient, bulk: dict[str, Any], word: str) -> httpx.Response:
    return await api.post(f"/v1/bulk/{bulk['id']}/{word}")


async def expand(bulk: dict[str, Any]) -> Outcome:
    doorbell = Delivery(id=UUID(bulk["task_id"]), actor="emails.expand_bulk", durable=True)
    async with working(Runtime.of_loop()) as runtime:
        return await execute(runtime, doorbell)


async def ring(id: UUID) -> Outcome:
    async with working(Runtime.of_loop()) as runtime:
        return await execute(runtime, Delivery(id=id, actor="emails.send_email", durable=True))


async def send_admitted(bulk: dict[str, Any], most: int = 10_000) -> int:
    """Let in what the gate has room for, and send it, until there is no more."""
    async with working(Runtime.of_loop()) as runtime:
        return await _send_admitted(runtime, bulk, most)


async def _send_admitted(runtime: Runtime, bulk: dict[str, Any], most: int) -> int:
    sent = 0
    while sent < most:
        await runtime.ledger.admit([f"bulk:{UUID(bulk['task_id'])}"])
        rows = await execute_sql(
            "SELECT id FROM messages WHERE gate IS NOT NULL AND admitted AND state = 'queued' ORDER BY id LIMIT :most",
            most=most - sent,
        )
        if not rows:
            break
        deliveries = [Delivery(id=row["id"], actor="emails.send_email", durable=True) for row in rows]
        await asyncio.gather(*(execute(runtime, delivery) for delivery in deliveries))
        sent += len(rows)
    return sent


async def ended(engine: AsyncEngine) -> UUID | None:
    """A bulk that is seen only now to have nothing that waits."""
    async with engine.begin() as connection:
        return await repository.ended(connection)


async def test_a_list_is_mailed_each_address_once_and_counted(
    api: httpx.AsyncClient, mailbox: Any, engine: AsyncEngine
) -> None:
    recipients = [*people(20), {"to": "USER3@example.org", "variables": {"name": "again"}}]
    bulk = await ask(api, recipients=recipients, name="hello", tags=["term"])
    assert bulk["id"] == "bk_" + bulk["task_id"].replace("-", "")
    assert (bulk["status"], bulk["total"], bulk["counts"]) == ("running", bulk["total"], {"pending": bulk["total"]})
    assert isinstance(await expand(bulk), Done)
    assert (await look(api, bulk))["counts"] == {"queued": bulk["total"]}
    assert await ended(engine) is None
    await send_admitted(bulk, most=bulk["total"] - 1)
    assert await ended(engine) is None
    await send_admitted(bulk)
    told = await look(api, bulk)
    assert (told["status"], told["counts"]) == ("completed", {"sent": bulk["total"]})
    assert [await ended(engine), await ended(engine)] == [UUID(bulk["task_id"]), None]
    recipients_of = [mail.recipients[0] for mail in mailbox.mails]
    assert len(recipients_of) == len(set(recipients_of)) == bulk["total"]
    listed = (await api.get("/v1/bulk")).json()["items"]
    assert [each["id"] for each in listed] == [bulk["id"]]
    (mail,) = (await api.get("/v1/emails?to=user7@example.org")).json()["items"]
    assert (mail["lane"], mail["tags"], mail["status"]) == ("bulk", ["term"], "sent")


async def test_expansion_goes_in_windows_and_never_writes_a_mail_twice(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.broadcasts.dispatch.CHUNK", 7)
    monkeypatch.setattr("service.broadcasts.dispatch.WINDOW", 20)
    bulk = await ask(api, recipients=people(50))
    assert isinstance(await expand(bulk), Snoozed)
    assert (await look(api, bulk))["counts"] == {"queued": 21, "pending": 29}
    for _ in range(6):
        await execute_sql(
            "UPDATE messages SET due_at = clock_timestamp() WHERE actor = 'emails.expand_bulk' AND state = 'queued'"
        )
        await asyncio.gather(expand(bulk), expand(bulk))
        await send_admitted(bulk)
    (row,) = await execute_sql("SELECT count(*), count(DISTINCT recipients[1]) AS distinct FROM emails")
    assert (row["count"], row["distinct"]) == (50, 50)
    assert (await look(api, bulk))["counts"] == {"sent": 50}


@pytest.mark.parametrize("policy", ["hold", "resend"])
async def test_a_bulk_says_what_becomes_of_its_mails_in_doubt(api: httpx.AsyncClient, policy: str) -> None:
    bulk = await ask(api, recipients=people(2), **({} if policy == "hold" else {"uncertain": policy}))
    assert (bulk["uncertain"], (await look(api, bulk))["uncertain"]) == (policy, policy)
    await expand(bulk)
    rows = await execute_sql("SELECT DISTINCT uncertain_policy FROM messages WHERE actor = 'emails.send_email'")
    assert rows == [{"uncertain_policy": policy}]


async def test_bad_recipients_refuse_the_whole_or_are_told_by_their_place(api: httpx.AsyncClient) -> None:
    recipients = [*people(2), {"to": "nobody"}, {"to": "x@example.org"}, {"to": "y@example.org", "locale": "?"}]
    body = {"template": TEMPLATE, "recipients": recipients}
    refused = await api.post("/v1/emails/bulk", json=body)
    assert refused.status_code == 422
    pointers = {
        "/recipients/2/to",
        "/recipients/3/variables/name",
        "/recipients/4/locale",
        "/recipients/4/variables/name",
    }
    assert {fault["pointer"] for fault in refused.json()["errors"]} == pointers
    assert await execute_sql("SELECT 1 FROM bulks") == []
    bulk = await ask(api, recipients=recipients, mode="partial")
    assert (bulk["total"], bulk["refused"]) == (2, 3)
    assert {fault["pointer"] for fault in bulk["errors"]} == pointers


CSV = (
    'to,name,locale,message\r\nAda <ada@example.org>,"Ada, L.",de,"Two ""short""\nlines"\r\n'
    "\r\nbob@example.org,Bob,,\r\n"
)
NDJSON = (
    '{"to": "ada@example.org", "variables": {"name": "Ada"}}\n\n{"to": "bob@example.org", "variables": {"name": "B"}}'
)


@pytest.mark.parametrize(("media", "rows"), [("text/csv; charset=utf-8", CSV), ("application/x-ndjson", NDJSON)])
async def test_a_file_of_rows_fills_an_open_bulk_and_the_same_file_again_adds_nothing(
    api: httpx.AsyncClient, media: str, rows: str, mailbox: Any
) -> None:
    bulk = await ask(api)
    assert (bulk["status"], bulk["total"]) == ("open", 0)
    assert (await command(api, bulk, "start")).status_code == 409

    async def pieces() -> Any:
        for start in range(0, len(rows), 5):
            yield rows[start : start + 5].encode()

    for added in (2, 0):
        answer = await api.put(f"/v1/bulk/{bulk['id']}/recipients", content=pieces(), headers={"Content-Type": media})
        assert answer.status_code == 200, answer.text
        assert (answer.json()["added"], answer.json()["total"]) == (added, 2)
    started = await command(api, bulk, "start")
    assert (started.status_code, started.json()["status"]) == (200, "running")
    closed = await api.put(f"/v1/bulk/{bulk['id']}/recipients", content=rows, headers={"Content-Type": media})
    assert closed.status_code == 409
    await expand(bulk)
    assert await send_admitted(bulk) == 2
    assert {mail.recipients[0] for mail in mailbox.mails} == {"ada@example.org", "bob@example.org"}


@pytest.mark.parametrize(
    ("media", "rows", "pointers"),
    [
        (
            "text/csv",
            "to,name\na@example.org,A\nnobody,B\nc@example.org\nd@example.org,\n",
            ["/lines/3/to", "/lines/4", "/lines/5/variables/name"],
        ),
        ("text/csv", 'to,name\na@example.org,"A\n', ["/lines/2"]),
        ("text/csv", b"to,name\na@example.org,\xff\nb@example.org,B", ["/lines/2"]),
        (
            "application/x-ndjson",
            '{"to": 7}\nno\n{"to": "a@example.org", "x": 1}',
            ["/lines/1/to", "/lines/2", "/lines/3/x"],
        ),
    ],
)
async def test_bad_rows_are_told_by_line_or_refuse_the_file(
    api: httpx.AsyncClient, media: str, rows: Any, pointers: list[str]
) -> None:
    bulk = await ask(api)
    where = f"/v1/bulk/{bulk['id']}/recipients"
    atomic = await api.put(f"{where}?mode=atomic", content=rows, headers={"Content-Type": media})
    assert atomic.status_code == 422
    assert [fault["pointer"] for fault in atomic.json()["errors"]] == pointers
    assert (await look(api, bulk))["total"] == 0
    partial = await api.put(where, content=rows, headers={"Content-Type": media})
    assert [fault["pointer"] for fault in partial.json()["errors"]] == pointers
    assert partial.json()["refused"] == len(pointers)


async def test_what_is_no_file_of_rows_is_refused(api: httpx.AsyncClient) -> None:
    where = f"/v1/bulk/{(await ask(api))['id']}/recipients"
    for content, media, status in (
        ("name\nA\n", "text/csv", 400),
        ("to,to\n", "text/csv", 400),
        ("to\n" + "x" * 200_000, "text/csv", 400),
        ("{}", "application/json", 415),
    ):
        answer = await api.put(where, content=content, headers={"Content-Type": media})
        assert answer.status_code == status, content[:20]
        assert answer.headers["content-type"] == "application/problem+json"


async def test_a_throttle_holds_for_all_workers_together(api: httpx.AsyncClient, mailbox: Any) -> None:
    bulk = await ask(api, recipients=people(12), throttle="5/h")
    assert bulk["throttle"] == "5/h"
    await expand(bulk)
    assert await send_admitted(bulk) == 5
    assert (await look(api, bulk))["counts"] == {"queued": 7, "sent": 5}
    changed = await api.patch(f"/v1/bulk/{bulk['id']}", json={"throttle": "none"})
    assert changed.json()["throttle"] is None
    assert await send_admitted(bulk) == 7


async def test_a_paused_bulk_sends_nothing_until_it_is_resumed(
    api: httpx.AsyncClient, mailbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.broadcasts.dispatch.CHUNK", 5)
    monkeypatch.setattr("service.broadcasts.dispatch.WINDOW", 10)
    bulk = await ask(api, recipients=people(30))
    await expand(bulk)
    assert await send_admitted(bulk, most=3) == 3
    for _ in range(2):
        paused = await command(api, bulk, "pause")
        assert (paused.status_code, paused.json()["status"]) == (200, "paused")
    assert await send_admitted(bulk) == 0
    rows = await execute_sql("SELECT id FROM messages WHERE state = 'queued'")
    for row in rows:  # doorbells that were in Redis already
        await ring(row["id"])
    assert len(mailbox.mails) == 3
    for _ in range(2):
        assert (await command(api, bulk, "resume")).json()["status"] == "running"
    for _ in range(5):
        await execute_sql(
            "UPDATE messages SET due_at = clock_timestamp() WHERE actor = 'emails.expand_bulk' AND state = 'queued'"
        )
        await expand(bulk)
        await send_admitted(bulk)
    assert (await look(api, bulk))["counts"] == {"sent": 30}
    assert len(mailbox.mails) == 30
    late = await command(api, bulk, "cancel")
    assert (late.status_code, late.json()["counts"]) == (200, {"sent": 30})


async def test_a_mail_taken_up_while_its_bulk_is_being_paused_is_put_off(api: httpx.AsyncClient, mailbox: Any) -> None:
    bulk = await ask(api, recipients=people(1))
    await expand(bulk)
    await Runtime.of_loop().ledger.admit([f"bulk:{UUID(bulk['task_id'])}"])
    await execute_sql("UPDATE bulks SET status = 'paused'")  # committed after the claim, before the mail is read
    (row,) = await execute_sql("SELECT id FROM messages WHERE actor = 'emails.send_email'")
    outcome = await ring(row["id"])
    assert isinstance(outcome, Snoozed)
    assert (await command(api, bulk, "resume")).status_code == 200
    await send_admitted(bulk)
    assert len(mailbox.mails) == 1


async def test_a_correction_reaches_every_mail_that_was_not_sent(api: httpx.AsyncClient, mailbox: Any) -> None:
    async def write(subject: str) -> None:
        contents = {"en": {"subject": subject, "html": "<p>{{ name }}</p>"}}
        assert (await api.put("/v1/templates/term", json={"contents": contents})).status_code == 200
        assert (await api.post("/v1/templates/term/publish", json={})).status_code == 200

    await write("Wrong for {{ name }}")
    bulk = await ask(api, template={"key": "term"}, recipients=people(8))
    await expand(bulk)
    await send_admitted(bulk, most=2)
    await write("Right for {{ name }}")
    assert (await api.patch(f"/v1/bulk/{bulk['id']}", json={"version": 2})).status_code == 409
    await command(api, bulk, "pause")
    corrected = await api.patch(f"/v1/bulk/{bulk['id']}", json={"version": 2})
    assert (corrected.status_code, corrected.json()["template"]["version"]) == (200, 2)
    await command(api, bulk, "resume")
    await expand(bulk)
    await send_admitted(bulk)
    subjects = sorted(mail["Subject"].split()[0] for mail in mailbox.messages)
    assert subjects == ["Right"] * 6 + ["Wrong"] * 2


async def test_a_correction_that_does_not_fit_every_reader_changes_nothing(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.broadcasts.dispatch.CHUNK", 1)
    monkeypatch.setattr("service.broadcasts.dispatch.WINDOW", 1)
    bulk = await ask(api, recipients=people(3))
    await expand(bulk)
    await command(api, bulk, "pause")
    refused = await api.patch(f"/v1/bulk/{bulk['id']}", json={"variables": {"action_url": "javascript:"}})
    assert refused.status_code == 422
    assert {fault["pointer"] for fault in refused.json()["errors"]} == {
        f"/recipients/{n}/variables/action_url" for n in (2, 3)
    }


async def test_the_followers_of_a_topic_are_mailed_in_their_language(api: httpx.AsyncClient, mailbox: Any) -> None:
    users = [{"id": f"u{n}", "email": f"u{n}@example.org", "attributes": {"name": f"U{n}"}} for n in range(3)]
    assert (await api.post("/v1/users", json={"users": [*users, {"id": "silent"}]})).status_code < 300
    ids = [user["id"] for user in users] + ["silent"]
    followed = await api.post("/v1/topics/course:41/followers", json={"users": ids})
    assert followed.status_code < 300, followed.text
    bulk = await ask(api, topic="course:41")
    assert bulk["total"] == 3
    await expand(bulk)
    await send_admitted(bulk)
    assert {mail.recipients[0] for mail in mailbox.mails} == {f"u{n}@example.org" for n in range(3)}


async def test_a_bulk_is_one_request_to_its_key_and_its_tenants_alone(
    api: httpx.AsyncClient, make_key: MakeKey
) -> None:
    key = {"Idempotency-Key": "announce-41"}
    body = {"template": TEMPLATE, "recipients": people(3)}
    first = await api.post("/v1/emails/bulk", json=body, headers=key)
    again = await api.post("/v1/emails/bulk", json=body, headers=key)
    assert again.json() == first.json()
    assert len(await execute_sql("SELECT 1 FROM bulks")) == 1
    other = {"Authorization": f"Bearer {await make_key(tenant='other')}"}
    path = f"/v1/bulk/{first.json()['id']}"
    assert (await api.get(path, headers=other)).status_code == 404
    assert (await api.post(f"{path}/cancel", headers=other)).status_code == 404
    assert (await api.get("/v1/bulk", headers=other)).json()["items"] == []
    assert (await api.get("/v1/bulk/bk_7")).status_code == 404


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"throttle": "fast"}, "/throttle"),
        ({"recipients": people(1), "topic": "t"}, "/topic"),
        ({"template": {"key": "nothing"}}, "/template/key"),
        ({"template": {"key": "welcome", "version": 7}}, "/template/version"),
        ({"headers": {"Bcc": "x@example.org"}}, "/headers/Bcc"),
        ({"name": "a\nb"}, "/name"),
        ({"recipients": []}, "/recipients"),
        ({"uncertain": "forget"}, "/uncertain"),
    ],
)
async def test_a_bulk_that_breaks_a_rule_is_refused(
    api: httpx.AsyncClient, fields: dict[str, Any], pointer: str
) -> None:
    answer = await api.post("/v1/emails/bulk", json={"template": TEMPLATE, **fields})
    assert answer.status_code == 422, answer.text
    assert pointer in {fault["pointer"] for fault in answer.json()["errors"]}
