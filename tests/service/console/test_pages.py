"""What the pages show of what happened, what their buttons do, and that hostile text stays text."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.service.conftest import MakeKey
from tests.service.console.conftest import confirm, press

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
MAIL: dict[str, Any] = {
    "to": "ada@example.org",
    "subject": "Hello Ada",
    "text": "It works.",
    "html": "<p>It works.</p>",
}

VARIABLES = {"subject": "Hello", "message": "Hi."}

Sql = Callable[..., Awaitable[list[dict[str, Any]]]]


@pytest.fixture
def sql(engine: AsyncEngine) -> Sql:
    """Runs a statement and commits; its rows."""

    async def run(statement: str, **values: Any) -> list[dict[str, Any]]:
        async with engine.begin() as connection:
            found = await connection.execute(text(statement), values)
            return [dict(row) for row in found.mappings()] if found.returns_rows else []

    return run


async def page(browser: httpx.AsyncClient, path: str) -> str:
    answer = await browser.get(path)
    assert answer.status_code == 200, answer.text
    return answer.text


async def mail(api: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    answer = await api.post("/v1/emails", json=MAIL | more)
    assert answer.status_code == 202, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def doubt(sql: Sql, id: str, error: str = "null") -> None:
    """Have a message pass its point of no return and be lost there."""
    begin = "state = 'running', epoch = 1, lease_until = clock_timestamp(), worker = 'w'"
    await sql(f"UPDATE messages SET {begin} WHERE id = :id", id=id)
    await sql("UPDATE messages SET intent = true WHERE id = :id", id=id)
    lost = "state = 'uncertain', lease_until = NULL, error = CAST(:error AS jsonb)"
    await sql(f"UPDATE messages SET {lost} WHERE id = :id", id=id, error=error)


async def test_empty_pages_teach_the_next_step(browser: httpx.AsyncClient) -> None:
    hints = {
        "": "Nothing waits and nothing runs",
        "/emails": "POST /v1/emails",
        "/bulk": "POST /v1/emails/bulk",
        "/jobs": "POST /v1/jobs",
        "/quotas": "PUT /v1/organizations/acme",
        "/notifications": "POST /v1/notifications",
        "/webhooks": "POST /v1/webhooks",
        "/dead-letters": "Nothing needs attention",
        "/tasks": "No task yet",
    }
    for path, hint in hints.items():
        assert hint in await page(browser, f"/console{path}")


async def test_the_overview_counts_and_says_what_is_away(api: httpx.AsyncClient, browser: httpx.AsyncClient) -> None:
    for _ in range(3):
        await mail(api)
    found = await page(browser, "/console")
    assert 'hx-trigger="every 2s"' in found
    assert '<p class="figure">3<span>' in found
    assert "No worker is running." in found
    assert "The mail server does not respond." in found, "nobody listens on port 25 of a test"
    assert "callboard doctor" in found


async def test_a_mail_is_found_and_shown_with_its_timeline(api: httpx.AsyncClient, browser: httpx.AsyncClient) -> None:
    told, _ = await mail(api), await mail(api, to="grace@example.org", subject="Other")
    place = f"/console/emails/{told['id'][3:]}"
    by_address = await page(browser, "/console/emails?q=ada@example.org")
    assert (place in by_address, "Other" in by_address) == (True, False)
    assert place in await page(browser, f"/console/emails?q={told['request_id']}")
    assert (await browser.get("/console/find", params={"q": told["id"]})).headers["location"] == place
    shown = await page(browser, place)
    assert "<strong>Accepted</strong>" in shown
    assert "ada@example.org" in shown
    assert f'/console/requests/{told["request_id"]}"' in shown
    story = await page(browser, f"/console/requests/{told['request_id']}")
    assert "Request received" in story
    assert "emails.send_email" in await page(browser, f"/console/tasks/{told['task_id']}")
    assert "emails.send_email" in await page(browser, "/console/tasks?state=queued")


async def test_a_mail_is_canceled_by_its_button(api: httpx.AsyncClient, browser: httpx.AsyncClient) -> None:
    told = await mail(api)
    place = f"/console/emails/{told['id'][3:]}"
    asked, done = await confirm(browser, f"{place}/cancel")
    assert "“Hello Ada” to ada@example.org" in asked
    assert done.headers["location"] == f"{place}?done=canceled"
    assert '<p class="note" role="status">Canceled.</p>' in await page(browser, f"{place}?done=canceled")
    assert (await api.get(f"/v1/emails/{told['id']}")).json()["status"] == "canceled"
    _, again = await confirm(browser, f"{place}/cancel")
    assert again.headers["location"].endswith("done=canceled"), "again is harmless"


async def test_a_mail_is_sent_once_more_and_a_second_press_of_the_button_does_nothing(
    api: httpx.AsyncClient, browser: httpx.AsyncClient, sql: Sql
) -> None:
    told = await mail(api)
    place = f"/console/emails/{told['id'][3:]}"
    assert "Send a copy" not in await page(browser, place), "it is still to be sent"
    assert (await press(browser, f"{place}/resend", press="a")).headers["location"] == f"{place}?done=under-way"
    await confirm(browser, f"{place}/cancel")
    found = re.search(r'name="press" value="(\w+)"', await page(browser, place))
    assert found is not None
    first, again = [await press(browser, f"{place}/resend", press=found[1]) for _ in range(2)]
    assert first.headers["location"] == again.headers["location"] != f"{place}?done=resent"
    assert await sql("SELECT count(*) FROM emails") == [{"count": 2}]
    copy = await page(browser, first.headers["location"])
    assert f'href="{place}"' in copy, "the copy leads to the mail it is a copy of"
    assert (await press(browser, f"{place}/resend", press="another")).headers["location"] != first.headers["location"]
    gone = await press(browser, f"/console/emails/{'0' * 32}/resend", press="b")
    assert (gone.status_code, "There is no such email" in gone.text) == (404, True)


async def test_who_may_not_send_is_offered_no_second_copy_and_makes_none(
    api: httpx.AsyncClient, browser: httpx.AsyncClient, sql: Sql, make_key: MakeKey
) -> None:
    told = await mail(api)
    place = f"/console/emails/{told['id'][3:]}"
    await confirm(browser, f"{place}/cancel")
    assert "Send a copy" in await page(browser, place)
    await browser.post("/console/sign-in", data={"key": await make_key("operator", "emails:read")})
    assert "Send a copy" not in await page(browser, place)
    refused = await press(browser, f"{place}/resend", press="a")
    assert (refused.status_code, "--scope emails:send" in refused.text) == (403, True)
    assert await sql("SELECT count(*) FROM emails") == [{"count": 1}]


async def test_mails_of_two_tenants_are_framed_at_once_each_with_its_foot(
    api: httpx.AsyncClient, browser: httpx.AsyncClient, make_key: MakeKey
) -> None:
    news = {"subject": None, "text": None, "html": None, "template": {"key": "custom", "variables": VARIABLES}}
    mine = await mail(api, **news, category="news", lane="bulk")
    async with httpx.AsyncClient(transport=api._transport, base_url="http://callboard.test") as other:
        key = await make_key("*", "operator", tenant="others")
        await other.post("/console/sign-in", data={"key": key})
        api.headers["Authorization"] = f"Bearer {key}"
        theirs = await mail(api, **news, category="news", lane="bulk")
        asked = [(each, f"/console/emails/{told['id'][3:]}/frame") for each, told in ((browser, mine), (other, theirs))]
        frames = await asyncio.gather(*(each.get(path) for each, path in asked * 5))
        other._transport = httpx.ASGITransport(lambda *_: None)  # the application outlives this client
    assert [frame.status_code for frame in frames] == [200] * 10
    assert all("/u/" in frame.text for frame in frames)


async def test_quotas_are_shown_organization_by_organization(
    api: httpx.AsyncClient, browser: httpx.AsyncClient
) -> None:
    for name in ("acme", "globex"):
        await api.put(f"/v1/organizations/{name}", json={"plan": "team", "trust_score": 80})
    body = {"type": "activities.generate", "input": {"team_size": 8, "topic": "us", "setting": "remote"}}
    assert (await api.post("/v1/jobs", json=body | {"organization_id": "acme"})).status_code == 202
    shown = await page(browser, "/console/quotas")
    assert 'aria-label="1 of 100 jobs"' in shown
    assert 'aria-label="0 of 100 jobs"' in shown
    assert "globex" not in await page(browser, "/console/quotas?q=ACM")
    assert "No organization matches." in await page(browser, "/console/quotas?q=nobody")


async def test_an_uncertain_mail_waits_for_a_decision(
    api: httpx.AsyncClient, browser: httpx.AsyncClient, sql: Sql
) -> None:
    async def doubtful() -> tuple[str, str]:
        told = await mail(api)
        await doubt(sql, told["task_id"])
        return told["id"], f"/console/emails/{told['id'][3:]}"

    for form, status in ({"as": "sent"}, "sent"), ({"as": "failed"}, "failed"):
        id, place = await doubtful()
        assert "<strong>Outcome unknown.</strong>" in await page(browser, place)
        asked, done = await confirm(browser, f"{place}/resolve", **form)
        assert "This cannot be undone" in asked
        assert done.headers["location"].endswith("delivered")
        assert (await api.get(f"/v1/emails/{id}")).json()["status"] == status
    id, place = await doubtful()
    asked, done = await confirm(browser, f"{place}/requeue")
    assert "recipients may get the email twice" in asked
    assert done.headers["location"].endswith("done=requeued&n=1")
    assert (await api.get(f"/v1/emails/{id}")).json()["status"] == "queued"


async def test_a_group_of_dead_letters_is_requeued_once_its_exact_number_is_confirmed(
    api: httpx.AsyncClient, browser: httpx.AsyncClient, sql: Sql
) -> None:
    told = [await mail(api) for _ in range(4)]
    dead = """UPDATE messages SET state = 'dead', finished_at = clock_timestamp(), error = '{"type": "Refused<b>"}'"""
    await sql(dead)
    shown = await page(browser, "/console/dead-letters")
    assert '<td class="n" data-label="count">4</td>' in shown
    assert "Refused&lt;b&gt;" in shown
    assert "ada@example.org" in shown
    assert f'href="/console/emails/{told[0]["id"][3:]}"' in shown
    group = "dead\nemails.send_email\nRefused<b>"
    asked = await press(browser, "/console/dead-letters/requeue", group=group)
    assert "Requeue 4 tasks?" in asked.text
    assert await sql("SELECT DISTINCT state FROM messages") == [{"state": "dead"}], "one click changes nothing"
    chosen = [told[0]["task_id"], told[1]["task_id"], "nonsense"]
    question, done = await confirm(browser, "/console/dead-letters/requeue", id=chosen)
    assert "Requeue 2 tasks?" in question
    assert done.headers["location"].endswith("done=requeued&n=2&of=2")
    assert "Requeued. 2 tasks wait" in await page(browser, done.headers["location"])
    doubtful = (await mail(api))["task_id"]
    await doubt(sql, doubtful, '{"type": "Refused<b>"}')
    question, done = await confirm(browser, "/console/dead-letters/requeue", group=group)
    assert "Requeue 2 tasks?" in question
    left = await sql("SELECT state FROM messages WHERE state <> 'queued'")
    assert [row["state"] for row in left] == ["uncertain"], "an unknown outcome is not of the group that failed"
    for odd in ("", "dead", "dead\nx", "nonsense\nemails.send_email\nRefused<b>"):
        assert (
            (await press(browser, "/console/dead-letters/requeue", group=odd)).headers["location"].endswith("nothing")
        )
    assert (await press(browser, "/console/dead-letters/requeue")).headers["location"].endswith("done=nothing")
    assert (await press(browser, "/console/dead-letters/explode", id=doubtful)).status_code == 404


async def test_unknown_outcomes_are_settled_many_at_once_and_requeueing_them_names_the_risk(
    api: httpx.AsyncClient, browser: httpx.AsyncClient, sql: Sql
) -> None:
    told = [await mail(api) for _ in range(3)]
    for each in told:
        await doubt(sql, each["task_id"])
    ids = [each["task_id"] for each in told]
    risk = (await press(browser, "/console/dead-letters/requeue", id=ids)).text
    assert "The outcome of 3 tasks is unknown: recipients may get a second copy." in risk
    for verb, chosen, state in (("delivered", ids[:2], "done"), ("not-delivered", ids[2:], "dead")):
        question, done = await confirm(browser, f"/console/dead-letters/{verb}", id=chosen)
        assert "This cannot be undone." in question
        assert done.headers["location"].endswith(f"done=settled&n={len(chosen)}")
        rows = await sql("SELECT state FROM messages WHERE id = ANY(CAST(:ids AS uuid[]))", ids=chosen)
        assert {row["state"] for row in rows} == {state}


async def test_hard_bounces_need_no_attention_and_stand_apart(
    api: httpx.AsyncClient, browser: httpx.AsyncClient, sql: Sql
) -> None:
    gone, broken = await mail(api, to="gone@example.org"), await mail(api)
    dead = "UPDATE messages SET state = 'dead', finished_at = clock_timestamp(), outcome = CAST(:outcome AS jsonb)"
    await sql(f"{dead} WHERE id = :id", id=gone["task_id"], outcome='{"reason": "no_such_user", "text": "no Ada"}')
    await sql(f"{dead} WHERE id = :id", id=broken["task_id"], outcome='{"reason": "relay_denied"}')
    attention, bounces = [await page(browser, f"/console/dead-letters{more}") for more in ("", "?kind=bounces")]
    assert "The server does not relay for this sender" in attention
    assert "gone@example.org" not in attention
    assert ("The mailbox does not exist" in bounces, "no Ada" in bounces) == (True, True)
    assert "The server does not relay" not in bounces
    assert '<p class="faint">1 failed, 0 outcome unknown, 0 held</p>' in await page(browser, "/console")
    question = (await press(browser, "/console/dead-letters/requeue", id=gone["task_id"])).text
    assert "These addresses are suppressed" in question


async def test_webhooks_are_shown_tried_out_and_disabled(api: httpx.AsyncClient, browser: httpx.AsyncClient) -> None:
    made = (await api.post("/v1/webhooks", json={"url": "https://1.1.1.1/hook", "description": HOSTILE[:40]})).json()
    place = f"/console/webhooks/{made['id']}"
    assert "https://1.1.1.1/hook" in await page(browser, "/console/webhooks")
    assert (await press(browser, f"{place}/test")).headers["location"] == f"{place}?done=tested"
    shown = await page(browser, place)
    assert "webhook.test" in shown
    assert "<script>" not in shown
    [delivery] = (await api.get(f"/v1/webhooks/{made['id']}/deliveries")).json()["items"]
    assert "It works." in await page(browser, f"{place}/{delivery['id']}")
    assert (await press(browser, f"{place}/{delivery['id']}/redeliver")).headers["location"].endswith("redelivered")
    assert "1 waiting delivery will be canceled" in (await press(browser, f"{place}/enabled", enabled="no")).text
    assert (await api.get(f"/v1/webhooks/{made['id']}")).json()["enabled"] is True, "one click changes nothing"
    _, done = await confirm(browser, f"{place}/enabled", enabled="no")
    assert done.headers["location"].endswith("done=disabled&n=1")
    assert (await api.get(f"/v1/webhooks/{made['id']}")).json()["enabled"] is False
    assert "It was disabled by hand." in await page(browser, place)


async def test_a_broadcast_is_paused_resumed_and_canceled_once_the_number_is_confirmed(
    api: httpx.AsyncClient, browser: httpx.AsyncClient, make_key: MakeKey
) -> None:
    people = [{"to": f"{name}@example.org", "variables": VARIABLES} for name in ("ada", "grace", "alan")]
    body = {"name": "News", "template": {"key": "custom"}, "recipients": people}
    body |= {"scheduled_at": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
    made = await api.post("/v1/emails/bulk", json=body)
    assert made.status_code == 202, made.text
    place = f"/console/bulk/{made.json()['id']}"

    async def status() -> str:
        told: str = (await api.get(f"/v1/bulk/{made.json()['id']}")).json()["status"]
        return told

    assert f"{place}/pause" in await page(browser, "/console/bulk")
    for verb, word, expected in (("pause", "paused", "paused"), ("resume", "resumed", "scheduled")):
        assert (await press(browser, f"{place}/{verb}")).headers["location"].endswith(f"?done={word}")
        assert await status() == expected
    asked = await press(browser, f"{place}/cancel")
    assert "Cancel “News”?" in asked.text
    assert "3 emails of 3 will not be sent. This cannot be undone." in asked.text
    assert await status() == "scheduled", "one click changes nothing"
    _, done = await confirm(browser, f"{place}/cancel")
    assert done.headers["location"].endswith("done=broadcast-canceled&n=3")
    assert "Broadcast canceled: 3 emails will not be sent." in await page(browser, done.headers["location"])
    assert await status() == "canceled"
    assert (await press(browser, f"{place}/explode")).status_code == 404
    await browser.post("/console/sign-in", data={"key": await make_key("*", "operator", tenant="others")})
    assert (await press(browser, f"{place}/cancel")).status_code == 404


async def test_a_job_is_shown_canceled_and_not_another_tenants(
    api: httpx.AsyncClient, browser: httpx.AsyncClient, make_key: MakeKey
) -> None:
    await api.put("/v1/organizations/acme", json={"plan": "team", "trust_score": 80})
    body = {"type": "activities.generate", "input": {"team_size": 8, "topic": HOSTILE, "setting": "remote"}}
    job = (await api.post("/v1/jobs", json=body | {"organization_id": "acme"})).json()
    place = f"/console/jobs/{job['id'][3:]}"
    shown = await page(browser, place)
    assert "&lt;script&gt;alert(1)" in shown
    assert "<script>alert" not in shown
    assert place in await page(browser, "/console/jobs?q=acme&status=pending")
    _, done = await confirm(browser, f"{place}/cancel")
    assert done.headers["location"].endswith("done=canceled")
    await browser.post("/console/sign-in", data={"key": await make_key("*", "operator", tenant="others")})
    assert (await browser.get(place)).status_code == 404
    assert (await browser.get(f"/console/tasks/{job['task_id']}")).status_code == 404


async def test_hostile_text_stays_text_and_a_mail_is_framed_where_nothing_runs(
    api: httpx.AsyncClient, browser: httpx.AsyncClient
) -> None:
    told = await mail(api, subject=HOSTILE, html=HOSTILE, tags=["t"], metadata={"a": HOSTILE})
    place = f"/console/emails/{told['id'][3:]}"
    for path in (place, "/console/emails", f"/console/emails?q={HOSTILE}", f"/console/tasks?actor={HOSTILE}"):
        shown = await page(browser, path)
        assert "<script>alert" not in shown, path
        assert "<img" not in shown, path
    assert 'sandbox=""' in await page(browser, place)
    frame = await browser.get(f"{place}/frame")
    assert "<script>alert(1)</script>" in frame.text, "as it was given"
    policy = frame.headers["content-security-policy"]
    assert policy.startswith("sandbox; default-src 'none';")
    assert "frame-ancestors 'self'" in policy
    plain = await mail(api, html=None, text="<b>plain</b>")
    assert (
        (await browser.get(f"/console/emails/{plain['id'][3:]}/frame")).headers["content-type"].startswith("text/plain")
    )


@pytest.mark.parametrize(
    "path",
    ["/emails/nonsense", "/emails/" + "0" * 32, "/jobs/x", "/notifications/x", "/notifications/no_" + "0" * 32,
     "/webhooks/x", "/webhooks/wh_" + "0" * 32, "/tasks/x", "/requests/x", "/requests/%3Cscript%3E",
     "/emails?q=em_x"],
)  # fmt: skip
async def test_what_is_not_there_says_so_on_a_page(browser: httpx.AsyncClient, path: str) -> None:
    answer = await browser.get(f"/console{path}")
    assert answer.status_code == 404
    assert "To the overview" in answer.text
    assert "<script>" not in answer.text


async def test_no_question_of_an_address_is_an_error(browser: httpx.AsyncClient) -> None:
    lists = ("emails", "jobs", "quotas", "tasks", "dead-letters", "webhooks", "notifications", "bulk")
    for odd in ("%00", "a%00b", "%ff", "%", "'", "x" * 5_000, "%25", "em_", "\u202e"):
        for name in lists:
            fields = "&".join(f"{field}={odd}" for field in ("q", "actor", "error", "state", "status", "before"))
            answer = await browser.get(f"/console/{name}?{fields}")
            assert answer.status_code in {200, 303, 400, 404}, (name, odd)
        assert (await browser.get(f"/console/find?q={odd}")).status_code in {200, 303, 400}
