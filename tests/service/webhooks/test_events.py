"""Events are written where the records change: for whom it concerns, in one go, and at no cost where nobody listens."""

import httpx

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
