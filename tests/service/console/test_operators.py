"""What an operator finds: subjects, broadcasts with their progress, addresses, templates, users, keys, what fails."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.console.pages import ago
from service.console.sparkline import HEIGHT, WIDTH, area, line
from tests.service.conftest import MakeKey
from tests.service.console.conftest import confirm, press

MAIL = {"to": "ada@example.org", "subject": "Hello Ada", "text": "It works."}
NEWS = {
    "contents": {"en": {"subject": "News for {{ name }}", "html": "<p>Hello {{ name }}</p>"}},
    "variables": {"name": {"description": "First name", "required": True, "example": "Ada"}},
}

Accept = Callable[..., Awaitable[dict[str, Any]]]
Sql = Callable[..., Awaitable[None]]


@pytest.fixture
def accept(api: httpx.AsyncClient) -> Accept:
    async def send(path: str, body: Any, method: str = "POST") -> dict[str, Any]:
        answer = await api.request(method, path, json=body)
        assert answer.is_success, answer.text
        told: dict[str, Any] = answer.json()
        return told

    return send


@pytest.fixture
def sql(engine: AsyncEngine) -> Sql:
    async def run(statement: str, **values: Any) -> None:
        async with engine.begin() as connection:
            await connection.execute(text(statement), values)

    return run


async def page(browser: httpx.AsyncClient, path: str, **query: str) -> str:
    answer = await browser.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.text


async def write_news(accept: Accept) -> None:
    await accept("/v1/templates/news", NEWS, "PUT")
    await accept("/v1/templates/news/publish", {})


async def test_emails_are_listed_by_subject_and_narrowed_by_template_broadcast_status_and_day(
    browser: httpx.AsyncClient, accept: Accept
) -> None:
    await write_news(accept)
    plain = await accept("/v1/emails", MAIL)
    news = {"template": {"key": "news", "variables": {"name": "Ada"}}}
    templated = await accept("/v1/emails", {"to": "Grace@example.org"} | news)
    first, second = (f"/console/emails/{each['id'][3:]}" for each in (plain, templated))
    shown = await page(browser, "/console/emails")
    assert f'href="{first}">Hello Ada</a>' in shown
    assert f'href="{second}">Template news</a>' in shown, "not rendered yet"
    today, tomorrow = (str((datetime.now(UTC) + timedelta(days=days)).date()) for days in (0, 1))
    expected = (
        ({"template": "news"}, (False, True)),
        ({"template": "nosuch"}, (False, False)),
        ({"status": "queued"}, (True, True)),
        ({"status": "sent"}, (False, False)),
        ({"since": today, "until": today}, (True, True)),
        ({"since": tomorrow}, (False, False)),
        ({"since": "nonsense"}, (True, True)),
        ({"bulk": "bk_" + "0" * 32}, (False, False)),
        ({"bulk": "nonsense"}, (False, False)),
        ({"q": "Grace@EXAMPLE.org"}, (False, True)),
    )
    for query, found in expected:
        shown = await page(browser, "/console/emails", **query)
        assert (first in shown, second in shown) == found, query
    assert "<title>Hello Ada · Callboard</title>" in await page(browser, first)


async def test_a_broadcast_has_a_page_with_its_progress_and_its_emails(
    api: httpx.AsyncClient, browser: httpx.AsyncClient, accept: Accept, sql: Sql
) -> None:
    await write_news(accept)
    people = [{"to": f"{name}@example.org", "variables": {"name": name}} for name in ("ada", "grace", "alan")]
    body = {"name": "April", "template": {"key": "news"}, "recipients": people, "throttle": "10/m"}
    made = await accept("/v1/emails/bulk", body)
    place = f"/console/bulk/{made['id']}"
    assert f'href="{place}">April</a>' in await page(browser, "/console/bulk")
    shown = await page(browser, place)
    for words in ("0 of 3 emails", "Limited to 10/m", 'aria-label="April: 0 of 3"', "not written yet", "Cancel…"):
        assert words in shown, words
    assert f"/console/emails?bulk={made['id']}" in shown
    await sql("UPDATE bulks SET expanded = 3, ended_at = clock_timestamp(), status = 'running'")
    shown = await page(browser, place)
    assert ("3 of 3 emails" in shown, "Completed" in shown, "100 %" in shown) == (True, True, True)


async def test_a_suppression_is_found_and_removed_once_confirmed(
    api: httpx.AsyncClient, browser: httpx.AsyncClient, accept: Accept, make_key: MakeKey
) -> None:
    made = await accept("/v1/suppressions", {"address": "Ada@example.org", "reason": "complaint", "note": "by phone"})
    place = f"/console/suppressions/{made['id']}/remove"
    for query in ({}, {"q": "ADA@example.org"}, {"q": made["id"]}, {"reason": "complaint"}):
        shown = await page(browser, "/console/suppressions", **query)
        assert (place in shown, "by phone" in shown) == (True, True), query
    assert place not in await page(browser, "/console/suppressions", q="grace@example.org")
    failed = await accept("/v1/emails", MAIL)
    asked, done = await confirm(browser, place)
    assert "The recipient asked not to get these emails" in asked
    assert done.headers["location"] == "/console/suppressions?done=unsuppressed"
    assert (await api.get("/v1/suppressions")).json()["items"] == []
    assert (await press(browser, place)).status_code == 404
    assert failed
    again = await accept("/v1/suppressions", {"address": "ada@example.org"})
    await browser.post("/console/sign-in", data={"key": await make_key("*", "operator", tenant="others")})
    assert (await press(browser, f"/console/suppressions/{again['id']}/remove")).status_code == 404
    assert "ada@example.org" not in await page(browser, "/console/suppressions")


async def test_an_email_to_a_suppressed_address_leads_to_the_suppression_and_is_not_tried_again(
    browser: httpx.AsyncClient, accept: Accept, sql: Sql
) -> None:
    told = await accept("/v1/emails", MAIL)
    place = f"/console/emails/{told['id'][3:]}"
    error = """'{"type": "Dead", "message": "no_such_user at rcpt"}'"""
    outcome = """'{"reason": "no_such_user", "code": 550, "text": "5.1.1 no Ada here"}'"""
    dead = f"state = 'dead', finished_at = clock_timestamp(), error = {error}, outcome = {outcome}"
    await sql(f"UPDATE messages SET {dead}")
    shown = await page(browser, place)
    assert "<strong>The mailbox does not exist.</strong> The server replied: 550 5.1.1 no Ada here." in shown
    assert "no_such_user at rcpt" not in shown.partition("Technical details")[0]
    assert f"{place}/requeue" in shown
    await accept("/v1/suppressions", {"address": "ada@example.org", "reason": "hard_bounce"})
    shown = await page(browser, place)
    assert "ada@example.org is suppressed" in shown
    assert "/console/suppressions?q=ada%40example.org" in shown
    assert f"{place}/requeue" not in shown


async def test_templates_are_shown_with_their_versions_variables_and_a_preview(
    browser: httpx.AsyncClient, accept: Accept, make_key: MakeKey
) -> None:
    await write_news(accept)
    listed = await page(browser, "/console/templates")
    assert "/console/templates/news" in listed
    assert "/console/templates/welcome" in listed
    shown = await page(browser, "/console/templates/news")
    for words in ("News for {{ name }}", "First name", "Version 1", "published"):
        assert words in shown, words
    frame = await browser.get("/console/templates/news/frame")
    assert "<p>Hello Ada</p>" in frame.text
    assert frame.headers["content-security-policy"].startswith("sandbox; default-src 'none';")
    assert (await browser.get("/console/templates/welcome/frame")).status_code == 200
    assert "built in" in await page(browser, "/console/templates/welcome")
    for path in ("/nosuch", "/nosuch/frame", "/news?version=7", "/welcome?version=1"):
        assert (await browser.get(f"/console/templates{path}")).status_code == 404, path
    await browser.post("/console/sign-in", data={"key": await make_key("*", "operator", tenant="others")})
    assert (await browser.get("/console/templates/news")).status_code == 404


async def test_domains_and_transports_are_listed_without_their_secrets(
    browser: httpx.AsyncClient, accept: Accept, sql: Sql
) -> None:
    made = await accept("/v1/senders", {"domain": "acme.example"})
    shown = await page(browser, "/console/domains")
    assert "acme.example" in shown
    assert all(record["name"] in shown for record in made["records"])
    assert "No transport of your own." in await page(browser, "/console/transports")
    await sql(
        "INSERT INTO transports (id, tenant_id, name, host, port, tls, verify, username, password, domains, pool_size)"
        " SELECT gen_random_uuid(), id, 'relay', 'smtp.acme.example', 587, 'starttls', true, 'ann', 'sealed', '{}', 5"
        " FROM tenants"
    )
    shown = await page(browser, "/console/transports")
    assert ("smtp.acme.example:587" in shown, "as ann" in shown, "sealed" in shown) == (True, True, False)


async def test_users_are_found_by_id_and_address_page_by_page(
    browser: httpx.AsyncClient, accept: Accept, make_key: MakeKey
) -> None:
    for number in range(55):
        await accept(f"/v1/users/u-{number:02}", {"email": f"Ada <Ada{number}@example.org>"}, "PUT")
    first = await page(browser, "/console/users")
    assert ("u-00" in first, "u-54" in first, "before=u-49" in first) == (True, False, True)
    assert "u-54" in await page(browser, "/console/users", before="u-49")
    for q in ("u-07", "ada7@example.org"):
        found = await page(browser, "/console/users", q=q)
        assert ("/console/users/u-07" in found, "u-08" in found) == (True, False), q
    shown = await page(browser, "/console/users/u-07")
    assert "Ada &lt;Ada7@example.org&gt;" in shown
    assert (await browser.get("/console/users/nosuch")).status_code == 404
    await browser.post("/console/sign-in", data={"key": await make_key("*", "operator", tenant="others")})
    assert (await browser.get("/console/users/u-07")).status_code == 404


async def test_keys_are_listed_to_a_key_with_every_scope_and_never_in_full(
    api: httpx.AsyncClient, browser: httpx.AsyncClient, make_key: MakeKey
) -> None:
    key = await make_key("emails:send", name="the shop")
    await make_key("emails:send", name="not theirs", tenant="others")
    shown = await page(browser, "/console/keys")
    assert ("the shop" in shown, key[:12] in shown, key in shown) == (True, True, False)
    assert "not theirs" not in shown
    await browser.post("/console/sign-in", data={"key": await make_key("operator", "emails:*")})
    assert (await browser.get("/console/keys")).status_code == 403
    assert 'href="/console/keys"' not in await page(browser, "/console")


async def test_an_endpoint_that_fails_is_red_with_its_last_response_and_success_rate(
    browser: httpx.AsyncClient, accept: Accept, sql: Sql
) -> None:
    hook = await accept("/v1/webhooks", {"url": "https://hooks.example.org/", "events": ["email.sent"]})
    await accept(f"/v1/webhooks/{hook['id']}/test", {})
    await sql("UPDATE webhook_endpoints SET failing_since = clock_timestamp()")
    await sql("UPDATE messages SET attempts = 1 WHERE actor = 'webhooks.deliver'")
    await sql(
        "INSERT INTO message_attempts (message_id, epoch, outcome, started_at, ended_at, detail)"
        """ SELECT id, 1, 'retry', clock_timestamp(), clock_timestamp(), '{"status": 500}' FROM webhook_deliveries"""
    )
    for path in ("/console/webhooks", f"/console/webhooks/{hook['id']}"):
        shown = await page(browser, path)
        assert ('<span class="pill bad">failing</span>' in shown, "HTTP 500" in shown) == (True, True), path
    assert "0 % of the last 50 tried deliveries succeeded" in shown
    assert '<span class="badge bad" title="1 failing">' in await page(browser, "/console/emails"), "in the navigation"


async def test_the_attention_line_stands_on_every_page_in_the_words_of_the_checks(
    browser: httpx.AsyncClient, accept: Accept
) -> None:
    await accept("/v1/emails", MAIL)
    findings = await browser._transport.app.app.app.state.checks.findings()  # type: ignore[attr-defined]
    assert findings, "no worker runs in a test"
    for path in ("/console", "/console/emails", "/console/nosuch"):
        shown = (await browser.get(path)).text
        assert f"<strong>{findings[0].sentence}</strong>" in shown, path


@pytest.mark.parametrize(("path", "is_framed"), [("/nosuch", True), ("/nosuch/x/y", True), ("/emails/x/y/z", False)])
async def test_an_unknown_page_is_a_page(browser: httpx.AsyncClient, path: str, is_framed: bool) -> None:
    answer = await browser.get(f"/console{path}")
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (404, "text/html")
    assert "To the overview" in answer.text
    assert ('aria-label="Sections"' in answer.text) is is_framed


def test_a_curve_stays_in_its_frame() -> None:
    assert line([]) == area([]) == ""
    for values in ([0] * 60, [1], list(range(60)), [5, 0, 900]):
        points = [tuple(map(float, each.strip("ML ").split())) for each in line(values).split(" L")]
        assert len(points) == len(values)
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)


def test_times_are_told_as_a_person_would() -> None:
    now = datetime.now(UTC)
    told = [ago(now - timedelta(seconds=5)), ago(now + timedelta(minutes=5, seconds=1)), ago(now), ago(None)]
    assert told == ["5 s ago", "in 5 min 1 s", "now", "–"]
