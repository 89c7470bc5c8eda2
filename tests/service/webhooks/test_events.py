"""Events are written where the records change: for whom it concerns, in one go, and at no cost where nobody listens."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from callboard_workers.execution.attempt import execute
from callboard_workers.message import Delivery
from service.broadcasts.actors import end_bulks
from service.emails import models as emails
from service.jobs import models as jobs
from service.notifications import models as notifications
from service.webhooks.types import TEST, TYPES
from tests.service.conftest import MakeKey
from tests.service.jobs.bench import REQUEST
from tests.service.webhooks.conftest import OpenDesk, Sql
from tests.service.webhooks.standard import verified


async def test_a_mail_that_was_sent_is_told_with_what_is_known_of_it(open_desk: OpenDesk) -> None:
    async with open_desk() as desk:
        endpoint = await desk.endpoint(events=["email.sent"])
        [id] = await desk.happen("sent")
        await desk.work()
        [seen] = desk.server.seen
        event = verified(seen, endpoint["secret"])
    assert event["type"] == "email.sent"
    assert event["data"] | {"created_at": 0, "updated_at": 0} == {
        "id": f"em_{id.hex}", "task_id": str(id), "request_id": "story-1", "status": "sent", "mode": "live",
        "from": "a@example.org", "to": ["b@example.org"], "cc": [], "bcc": [], "subject": "Hello", "template": None,
        "category": None, "tags": [], "metadata": {}, "message_id": "<m@example.org>", "error": None,
        "created_at": 0, "updated_at": 0,
    }  # fmt: skip
    assert event["data"]["updated_at"].endswith("Z")
    assert seen.headers["content-type"] == "application/json"


async def test_who_subscribed_is_told_and_nobody_else(open_desk: OpenDesk, make_key: MakeKey) -> None:
    async with open_desk() as desk:
        await make_key(tenant="others")
        await desk.endpoint("/all")
        await desk.endpoint("/bounced", events=["email.bounced"])
        await desk.endpoint("/off", enabled=False)
        await desk.happen("sent")
        await desk.happen("sent", tenant="others")
        await desk.happen("sent", mode="test")
        await desk.work()
    assert [seen.path for seen in desk.server.seen] == ["/all"]


async def test_a_simulated_email_is_sent_before_its_recipient_reports(
    open_desk: OpenDesk, make_key: MakeKey, sql: Sql
) -> None:
    async with open_desk() as desk:
        desk.api.headers["Authorization"] = f"Bearer {await make_key(mode='test')}"
        await desk.endpoint()
        email = {"to": "bounced@simulator.callboard.test", "subject": "Hello", "text": "Hi"}
        assert (await desk.api.post("/v1/emails", json=email)).status_code == 202
        for actor in ("emails.send_email", "emails.report_simulated"):
            [message] = await sql("SELECT id FROM messages WHERE actor = :actor", actor=actor)
            await execute(desk.runtime, Delivery(id=message["id"], actor=actor, durable=True))
        await desk.work()
        told = [json.loads(seen.body) for seen in desk.server.seen]
    assert [(event["type"], event["data"]["status"]) for event in told] == [
        ("email.sent", "sent"),
        ("email.bounced", "bounced"),
    ]


async def test_a_batch_of_mails_is_one_set_of_events_in_the_same_transaction(open_desk: OpenDesk, sql: Sql) -> None:
    async with open_desk() as desk:
        await desk.endpoint("/one")
        await desk.endpoint("/two")
        await desk.happen("failed", 300)
        counts = await sql(
            "SELECT (SELECT count(*) FROM webhook_events) AS events, (SELECT count(*) FROM webhook_deliveries) AS"
            " deliveries, (SELECT count(DISTINCT xmin::text) FROM webhook_events) AS transactions,"
            " (SELECT count(*) FROM messages WHERE actor = 'webhooks.deliver') AS messages"
        )
    assert counts == [{"events": 300, "deliveries": 600, "transactions": 1, "messages": 600}]


async def test_what_stays_as_it_was_is_not_told_again(open_desk: OpenDesk, sql: Sql) -> None:
    async with open_desk() as desk:
        await desk.endpoint()
        await desk.happen("sent")
        await sql("UPDATE emails SET updated_at = clock_timestamp()")
        assert len(await desk.waiting()) == 1
        await sql("UPDATE emails SET status = 'uncertain'")
        assert len(await desk.waiting()) == 2


async def test_nothing_is_written_where_nobody_listens(open_desk: OpenDesk, sql: Sql) -> None:
    async with open_desk() as desk:
        await desk.happen("sent", 10)
        await desk.endpoint(events=[])
        await desk.happen("sent", 10)
        assert await sql("SELECT id FROM webhook_events") == []
        assert await desk.waiting() == []


async def test_a_notification_is_told_once_when_the_last_of_its_people_was_served(
    open_desk: OpenDesk, sql: Sql
) -> None:
    async with open_desk() as desk:
        endpoint = await desk.endpoint(events=["notification.completed"])
        await desk.endpoint("/other", events=["email.sent"])
        asked = {"type": "prompt.published", "recipients": {"users": ["ada"]}, "data": {"title": "Tides"}}
        note = (await desk.api.post("/v1/notifications", json=asked)).json()
        chunk = "UPDATE notifications SET resolved = resolved + 1, inbox_delivered = inbox_delivered + 1"
        await sql(chunk)
        assert await desk.waiting() == []
        for _ in range(2):
            await sql(f"{chunk}, finished_at = clock_timestamp()")
        await desk.work()
        [seen] = desk.server.seen
        event = verified(seen, endpoint["secret"])
    assert (event["type"], event["data"]["id"], event["data"]["data"]) == (
        "notification.completed", note["id"], {"title": "Tides"},
    )  # fmt: skip
    assert event["data"]["counts"] | {"channels": 0} == {
        "resolved": 2, "overlapping": 0, "excluded": 0, "deduplicated": 0, "channels": 0,
    }  # fmt: skip
    assert event["data"]["counts"]["channels"]["inbox"] == {"delivered": 2, "muted": 0}


NOTE = {"type": "prompt.published", "recipients": {"users": ["ada"]}, "data": {"title": "Tides"}}
ENDED = "UPDATE messages SET state = :state, error = CAST(:error AS jsonb) WHERE id = CAST(:id AS uuid)"
DEAD = """{"type": "Dead", "message": "no mail can be made of it"}"""


@pytest.mark.parametrize(("state", "word"), [("dead", "failed"), ("expired", "failed"), ("canceled", "canceled")])
async def test_a_notification_that_cannot_be_completed_is_told_once_and_again_only_if_it_is_tried_again(
    open_desk: OpenDesk, sql: Sql, state: str, word: str
) -> None:
    async with open_desk() as desk:
        endpoint = await desk.endpoint(events=["notification.failed", "notification.canceled"])
        note = (await desk.api.post("/v1/notifications", json=NOTE)).json()
        await sql("UPDATE notifications SET resolved = 7")
        await sql(ENDED, state=state, error=DEAD, id=note["task_id"])
        await sql("UPDATE messages SET rings = rings + 1 WHERE state = 'dead'")
        await desk.work()
        [seen] = desk.server.seen
        event = verified(seen, endpoint["secret"])
        told = (await desk.api.get(f"/v1/notifications/{note['id']}")).json()
        if state == "dead":
            await sql("UPDATE messages SET state = 'queued' WHERE state = 'dead'")
            await sql(ENDED, state="dead", error=DEAD, id=note["task_id"])
            assert len(await desk.waiting()) == 1
    assert (event["type"], event["data"]["id"], event["data"]["status"]) == (f"notification.{word}", note["id"], word)
    assert event["data"]["error"] == {"code": "Dead", "detail": "no mail can be made of it"}
    assert (event["data"]["counts"]["resolved"], event["data"]["finished_at"]) == (7, None)
    assert (told["status"], told["error"]["code"]) == (word, event["data"]["error"]["code"])


async def test_a_notification_that_had_reached_everybody_is_not_told_to_have_failed(
    open_desk: OpenDesk, sql: Sql
) -> None:
    async with open_desk() as desk:
        await desk.endpoint(events=["notification.failed"])
        note = (await desk.api.post("/v1/notifications", json=NOTE)).json()
        await sql("UPDATE notifications SET finished_at = clock_timestamp()")
        await sql(ENDED, state="dead", error=DEAD, id=note["task_id"])
        assert await desk.waiting() == []


async def bulk(desk: Any, *names: str) -> dict[str, Any]:
    """A bulk that was accepted, and whose mails nobody has written yet."""
    recipients = [{"to": f"{name}@example.org", "variables": {"name": name}} for name in names]
    answer = await desk.api.post("/v1/emails/bulk", json={"template": {"key": "welcome"}, "recipients": recipients})
    assert answer.status_code == 202, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def test_a_bulk_is_told_once_when_nothing_of_it_waits_any_more(open_desk: OpenDesk, sql: Sql) -> None:
    async with open_desk() as desk:
        endpoint = await desk.endpoint(events=["bulk.completed"])
        made = await bulk(desk, "ada", "bob")
        await end_bulks()
        await sql("UPDATE bulks SET expanded = total")
        await sql("UPDATE messages SET gate = 'bulk:' || :id WHERE id = CAST(:id AS uuid)", id=made["task_id"])
        await end_bulks()
        assert await desk.waiting() == []
        await sql("UPDATE messages SET state = 'canceled' WHERE id = CAST(:id AS uuid)", id=made["task_id"])
        for _ in range(2):
            await end_bulks()
        await desk.work()
        [seen] = desk.server.seen
        event = verified(seen, endpoint["secret"])
    assert (event["type"], event["data"]["id"], event["data"]["total"]) == ("bulk.completed", made["id"], 2)
    assert (event["data"]["template"], event["data"]["counts"], event["data"]["unwritten"]) == ("welcome", {}, 0)


async def test_a_bulk_that_is_canceled_or_cannot_be_written_is_told(open_desk: OpenDesk, sql: Sql) -> None:
    async with open_desk() as desk:
        await desk.endpoint(events=["bulk.failed", "bulk.canceled"])
        failing, canceled = await bulk(desk, "ada"), await bulk(desk, "bob", "cy")
        await sql(ENDED, state="dead", error=DEAD, id=failing["task_id"])
        assert (await desk.api.post(f"/v1/bulk/{canceled['id']}/cancel")).status_code == 200
        await end_bulks()
        rows = await sql("SELECT type, data FROM webhook_events ORDER BY id")
    told = {row["type"]: row["data"] for row in rows}
    assert (len(rows), set(told)) == (2, {"bulk.failed", "bulk.canceled"})
    assert (told["bulk.failed"]["id"], told["bulk.failed"]["unwritten"]) == (failing["id"], 1)
    assert told["bulk.failed"]["error"]["detail"] == "no mail can be made of it"
    assert (told["bulk.canceled"]["id"], told["bulk.canceled"]["unwritten"]) == (canceled["id"], 2)


async def test_a_bulk_that_has_ended_is_not_told_to_be_canceled_or_to_have_failed(
    open_desk: OpenDesk, sql: Sql
) -> None:
    async with open_desk() as desk:
        await desk.endpoint(events=["bulk.completed", "bulk.canceled", "bulk.failed"])
        made = [await bulk(desk, "ada"), await bulk(desk, "bob")]
        await sql("UPDATE bulks SET expanded = total")
        for each in made:
            await sql(ENDED, state="dead", error=DEAD, id=each["task_id"])
        await end_bulks()
        for each in made:
            assert (await desk.api.post(f"/v1/bulk/{each['id']}/cancel")).status_code == 200
        rows = await sql("SELECT type, data ->> 'id' AS bulk, xmin::text AS written FROM webhook_events")
    assert sorted((row["type"], row["bulk"]) for row in rows) == sorted(("bulk.completed", each["id"]) for each in made)
    assert len({row["written"] for row in rows}) == 2, "each bulk is counted in a transaction of its own"


async def test_every_end_is_an_event_that_can_be_subscribed_to_and_is_described(sql: Sql) -> None:
    """The types come from the states that the code knows and from what the database's own functions write."""
    under_way = {"queued", "scheduled", "sending", "pending", "processing"}
    kinds = {"email": emails.Status, "job": jobs.Status, "notification": notifications.Status}
    ends = {f"{kind}.{word}" for kind, words in kinds.items() for word in words if word not in under_way}
    rows = await sql("SELECT prosrc FROM pg_proc WHERE proname IN ('webhooks_of_bulks', 'webhooks_of_fan_outs')")
    written = set(re.findall(r"(?:THEN|ELSE|b,) '(\w+)'", " ".join(row["prosrc"] for row in rows)))
    assert written == {"completed", "canceled", "failed"}
    assert set(TYPES) == ends | {f"bulk.{word}" for word in written}
    page = (Path(__file__).parents[3] / "docs" / "webhooks.md").read_text()
    table = page[page.index("## Events") : page.index("```json")]
    assert set(re.findall(r"`((?!data\.)[a-z]+\.[a-z]+)`(?=[^|\n]*\|)", table)) == {*TYPES, TEST}


async def test_a_job_tells_the_endpoint_that_it_names_of_its_end(open_desk: OpenDesk, sql: Sql) -> None:
    async with open_desk() as desk:
        await desk.api.put("/v1/organizations/acme", json={"plan": "team", "trust_score": 80})
        named, other = await desk.endpoint("/named", events=[]), await desk.endpoint("/other", events=["email.sent"])
        by_url = await desk.api.post("/v1/jobs", json=REQUEST | {"webhook": desk.server.url("/named")})
        by_id = await desk.api.post("/v1/jobs", json=REQUEST | {"webhook": named["id"]})
        silent = await desk.api.post("/v1/jobs", json=REQUEST)
        assert [answer.status_code for answer in (by_url, by_id, silent)] == [202] * 3, by_url.text
        await sql("UPDATE messages SET state = 'canceled' WHERE queue = 'jobs'")
        await desk.work()
        told = [verified(seen, named["secret"]) for seen in desk.server.seen]
        assert await desk.deliveries(other) == []
    assert {event["type"] for event in told} == {"job.canceled"}
    assert {event["data"]["id"] for event in told} == {by_url.json()["id"], by_id.json()["id"]}


async def test_a_job_may_only_name_an_endpoint_that_is_there(api: httpx.AsyncClient) -> None:
    await api.put("/v1/organizations/acme", json={"plan": "team", "trust_score": 80})
    for given in ("https://1.1.1.1/", "wh_" + "0" * 32, ""):
        answer = await api.post("/v1/jobs", json=REQUEST | {"webhook": given})
        assert answer.status_code == 422, answer.text
        [fault] = answer.json()["errors"]
        assert (fault["pointer"], "POST /v1/webhooks" in fault["message"]) == ("/webhook", True)
