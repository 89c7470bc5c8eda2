"""Search finds each kind of id within the tenant and the scopes of the key, and says where nothing matches."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from tests.service.conftest import MakeKey
from tests.service.console.conftest import token

MAIL = {"to": "ada@example.org", "subject": "Hello Ada", "text": "It works."}
VARIABLES = {"subject": "Hello", "message": "Hi."}
NOWHERE = "Nothing matches."

Accept = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
def accept(api: httpx.AsyncClient) -> Accept:
    async def send(path: str, body: Any, method: str = "POST") -> dict[str, Any]:
        answer = await api.request(method, path, json=body)
        assert answer.is_success, answer.text
        told: dict[str, Any] = answer.json()
        return told

    return send


async def find(browser: httpx.AsyncClient, q: str) -> str:
    """Where the search leads to, or the page that it shows."""
    answer = await browser.get("/console/find", params={"q": q})
    assert answer.status_code in {200, 303}
    return answer.headers.get("location") or answer.text


async def test_each_kind_of_id_leads_to_its_page(browser: httpx.AsyncClient, accept: Accept) -> None:
    mail = await accept("/v1/emails", MAIL)
    email, task = f"/console/emails/{mail['id'][3:]}", f"/console/tasks/{mail['task_id']}"
    await accept("/v1/organizations/acme", {"plan": "team", "trust_score": 80}, "PUT")
    await accept("/v1/users/u-1", {"email": "ada@example.org"}, "PUT")
    body = {"type": "activities.generate", "input": {"team_size": 8, "topic": "us", "setting": "remote"}}
    job = await accept("/v1/jobs", body | {"organization_id": "acme"})
    people = {"template": {"key": "custom"}, "recipients": [{"to": "grace@example.org", "variables": VARIABLES}]}
    broadcast = await accept("/v1/emails/bulk", people)
    note = await accept("/v1/notifications", {"type": "news", "recipients": {"users": ["u-1"]}, "data": {}})
    hook = await accept("/v1/webhooks", {"url": "https://hooks.example.org/", "events": ["email.sent"]})
    delivery = await accept(f"/v1/webhooks/{hook['id']}/test", {})
    expected = {
        mail["id"]: email,
        mail["id"].upper().replace("EM_", "em_"): email,
        mail["message_id"]: email,
        mail["task_id"]: task,
        mail["request_id"]: f"/console/requests/{mail['request_id']}",
        job["id"]: f"/console/jobs/{job['id'][3:]}",
        broadcast["id"]: f"/console/bulk/{broadcast['id']}",
        note["id"]: f"/console/notifications/{note['id']}",
        hook["id"]: f"/console/webhooks/{hook['id']}",
        delivery["id"]: f"/console/webhooks/{hook['id']}/{delivery['id']}",
        f"  {mail['id']} ": email,
    }
    assert {q: await find(browser, q) for q in expected} == expected
    both = await find(browser, "ada@example.org")
    assert ("/console/emails?q=ada%40example.org" in both, ">User<" in both) == (True, True)
    assert "acme" in await find(browser, "acme")


@pytest.mark.parametrize(
    "q", ["em_" + "0" * 32, "bk_" + "0" * 32, "nosuch", "Invoice spam 2", "no@example.org", "", "é<b>"]
)
async def test_where_nothing_matches_the_page_says_so_and_keeps_its_navigation(
    browser: httpx.AsyncClient, q: str
) -> None:
    shown = await find(browser, q)
    assert NOWHERE in shown
    assert 'aria-label="Sections"' in shown
    assert "<b>" not in shown


async def test_what_another_tenant_or_scope_keeps_is_not_found(
    api: httpx.AsyncClient, browser: httpx.AsyncClient, accept: Accept, make_key: MakeKey
) -> None:
    mail = await accept("/v1/emails", MAIL)
    wanted = [mail["id"], mail["task_id"], mail["request_id"], mail["message_id"], "ada@example.org"]
    for scopes, tenant in ((("*", "operator"), "others"), (("operator",), "tests")):
        await browser.post("/console/sign-in", data={"key": await make_key(*scopes, tenant=tenant)})
        for q in wanted:
            assert NOWHERE in await find(browser, q), (scopes, tenant, q)


async def test_the_overview_counts_the_tenant_that_it_shows(
    api: httpx.AsyncClient, browser: httpx.AsyncClient, accept: Accept, make_key: MakeKey
) -> None:
    for _ in range(3):
        await accept("/v1/emails", MAIL)
    mine = (await browser.get("/console")).text
    assert '<h2>Waiting</h2><p class="figure">3</p>' in mine
    await browser.post("/console/sign-in", data={"key": await make_key("*", "operator", tenant="others")})
    theirs = (await browser.get("/console")).text
    assert '<h2>Waiting</h2><p class="figure">0</p>' in theirs
    assert "Figures of <strong>others</strong>" in theirs
    assert await token(browser)
