"""A reader says no with one click: to this kind of mail, from this sender, and to nothing else."""

import re
from collections.abc import AsyncIterator
from email import message_from_bytes
from email.policy import default
from typing import Any

import httpx
import pytest

from service.settings import Settings
from tests.faults.sink import Sink
from tests.service.conftest import MakeKey, client_of
from tests.service.emails.posting import HELLO, happened, look, post, work

NEWS = {"category": "news", "lane": "bulk"}
LINK = re.compile(rb"^List-Unsubscribe: <(https://mail\.example)(/u/[^>]+)>\r\n", re.MULTILINE)


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
            "MAIL_FROM": "Academy <mail@academy.example>",
            "PUBLIC_URL": "https://mail.example/",
        }
    )


async def link_of(api: httpx.AsyncClient, sink: Sink, **fields: object) -> str:
    """The path of the link in a mail that was sent."""
    await work(await post(api, **{**NEWS, **fields}))
    found = LINK.search(sink.mails[-1].data.replace(b"\r\n ", b" "))
    assert found, sink.mails[-1].data
    assert b"\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" in sink.mails[-1].data
    return found[2].decode()


async def stranger(api: httpx.AsyncClient, method: str, path: str, **more: Any) -> httpx.Response:
    """Somebody without a key."""
    headers = {"Authorization": "", **more.pop("headers", {})}
    return await api.request(method, path, headers=headers, **more)


async def test_one_click_ends_this_kind_of_mail_only(api: httpx.AsyncClient, sink: Sink) -> None:
    path = await link_of(api, sink, to="Ada <Ada@example.org>")
    for _ in range(2):
        done = await stranger(api, "POST", path, data={"List-Unsubscribe": "One-Click"})
        assert done.status_code == 200
        assert "You are unsubscribed" in done.text
    (stands,) = (await api.get("/v1/suppressions")).json()["items"]
    assert (stands["address"], stands["category"], stands["reason"]) == ("ada@example.org", "news", "unsubscribe")
    first = (await api.get(f"/v1/emails/{stands['email_id']}")).json()
    assert [item["event"] for item in await happened(api, first)] == ["accepted", "sent", "unsubscribed"]
    news, reset = await post(api, **NEWS), await post(api, lane="critical")
    for mail in (news, reset):
        await work(mail)
    assert (await look(api, news))["status"] == "suppressed"
    assert (await look(api, reset))["status"] == "sent"


async def test_the_page_can_be_read_without_a_script_and_looking_changes_nothing(
    api: httpx.AsyncClient, sink: Sink
) -> None:
    path = await link_of(api, sink, to="ada@example.org", category="Tides")
    for _ in range(2):
        shown = await stranger(api, "GET", path)
        assert (shown.status_code, shown.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert "<script" not in shown.text
        assert 'method="post"' in shown.text
        for word in ("Tides", "ada@example.org", "Academy", "Unsubscribe</button>"):
            assert word in shown.text
        policy = shown.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "form-action 'self'" in policy
        assert shown.headers["cache-control"] == "no-store"
        assert "set-cookie" not in shown.headers
    assert (await api.get("/v1/suppressions")).json()["items"] == []


@pytest.mark.parametrize(
    ("mail", "stops", "stays"),
    [
        ({"category": "Tides"}, "emails of the category “Tides” to", "receipts and password resets."),
        ({"category": None}, "bulk emails without a category of their own to", "bulk emails that have a category"),
    ],
)
async def test_the_page_names_exactly_the_emails_that_stop(
    api: httpx.AsyncClient, sink: Sink, mail: dict[str, Any], stops: str, stays: str
) -> None:
    path = await link_of(api, sink, to="ada@example.org", lane="bulk", **mail)
    asked = (await stranger(api, "GET", path)).text
    assert ("will stop sending" in asked, stops in asked, stays in asked) == (True, True, True)
    done = (await stranger(api, "POST", path, data={"List-Unsubscribe": "One-Click"})).text
    assert ("no longer sends" in done, stops in done, stays in done) == (True, True, True)
    plain, bulk = await post(api, to="ada@example.org"), await post(api, to="ada@example.org", lane="bulk", **mail)
    for each in (plain, bulk):
        await work(each)
    assert (await look(api, plain))["status"] == "sent", "an email that is not of this kind"
    assert (await look(api, bulk))["status"] == "suppressed"


OWN = {
    "contents": {
        "en": {
            "subject": "Tides",
            "html": '<p>{% if unsubscribe_url %}<a href="{{ unsubscribe_url }}">No</a>{% endif %}</p>',
        }
    },
    "default_locale": "en",
}


@pytest.mark.parametrize("key", ["tides", "course_enrollment"])
async def test_a_template_shows_the_link_that_the_header_has(api: httpx.AsyncClient, sink: Sink, key: str) -> None:
    if key == "tides":
        assert (await api.put("/v1/templates/tides", json=OWN)).status_code == 200
        assert (await api.post("/v1/templates/tides/publish", json={})).status_code == 200
    variables = {"name": "Ada", "course_name": "Tides", "course_url": "https://academy.example/tides"}
    letter = {"to": "ada@example.org", "template": {"key": key, "variables": variables}}
    shown = await api.post(f"/v1/templates/{key}/preview", json={"variables": variables})
    assert 'href="https://mail.example/u/preview"' in shown.json()["html"]
    accepted = (await api.post("/v1/emails", json={**letter, "category": "news", "unsubscribe": True})).json()
    await work(accepted)
    found = LINK.search(sink.mails[-1].data.replace(b"\r\n ", b" "))
    assert found
    link = (found[1] + found[2]).decode()
    mail = message_from_bytes(sink.mails[-1].data, policy=default)
    body = mail.get_body(("html",))
    assert body is not None
    assert f'href="{link}"' in body.get_content()
    assert link in (await api.get(f"/v1/emails/{accepted['id']}/content")).json()["html"]
    await work((await api.post("/v1/emails", json=letter)).json())
    assert b"/u/" not in sink.mails[-1].data


async def test_a_reader_may_come_back_but_lifts_nothing_else(api: httpx.AsyncClient, sink: Sink) -> None:
    path = await link_of(api, sink, to="ada@example.org")
    await stranger(api, "POST", path)
    shown = await stranger(api, "GET", path)
    assert "You are unsubscribed" in shown.text
    assert "Subscribe again" in shown.text
    back = await stranger(api, "POST", path, data={"action": "resubscribe"})
    assert "You are subscribed again" in back.text
    assert (await api.get("/v1/suppressions")).json()["items"] == []
    await api.post("/v1/suppressions", json={"address": "ada@example.org", "category": "news", "reason": "complaint"})
    await stranger(api, "POST", path, data={"action": "resubscribe"})
    assert len((await api.get("/v1/suppressions")).json()["items"]) == 1


async def test_a_changed_token_is_nothing(api: httpx.AsyncClient, sink: Sink) -> None:
    path = await link_of(api, sink)
    token = path.removeprefix("/u/")
    middle = len(token) // 3
    changed = token[:middle] + ("A" if token[middle] != "A" else "B") + token[middle + 1 :]
    for other in (changed, token[:-1], token + "x", "x", "." * 50, "x" * 5000, "%00", "%ff"):
        for method in ("GET", "POST"):
            answer = await stranger(api, method, f"/u/{other}")
            assert answer.status_code == 404, other
            assert answer.headers["content-type"].startswith("application/problem+json")
    shown = await stranger(api, "GET", f"/u/{changed}", headers={"Accept": "text/html,*/*;q=0.8"})
    assert (shown.status_code, shown.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "This link does not work" in shown.text
    assert (await api.get("/v1/suppressions")).json()["items"] == []


async def test_links_outlive_a_change_of_the_key(api: httpx.AsyncClient, sink: Sink, settings: Settings) -> None:
    path = await link_of(api, sink)
    where = {"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url}
    changed = Settings.from_env({**where, "SECRET_KEY": "another secret of tests"})
    async with client_of(changed) as client:
        assert (await client.get(path)).status_code == 404
    kept = {"SECRET_KEY": "another secret of tests", "SECRET_KEYS_OLD": "some third secret key,a secret of tests only"}
    async with client_of(Settings.from_env({**where, **kept})) as client:
        assert (await client.get(path)).status_code == 200


async def test_only_mail_that_can_be_unsubscribed_from_has_the_headers(api: httpx.AsyncClient, sink: Sink) -> None:
    for fields, expected in (
        ({"category": "news", "unsubscribe": True}, True),
        ({"category": "news"}, False),
        ({"lane": "bulk"}, True),
        ({"lane": "bulk", "unsubscribe": False}, False),
        ({"lane": "bulk", "to": ["ada@example.org", "bob@example.org"]}, False),
    ):
        mail = await post(api, **fields)
        assert mail["unsubscribe"] is expected, fields
        await work(mail)
        assert (b"List-Unsubscribe-Post:" in sink.mails[-1].data) is expected, fields
    own = {"headers": {"List-Unsubscribe": "<mailto:no@academy.example>"}}
    answer = await api.post("/v1/emails", json={**HELLO, **own, "lane": "bulk"})
    assert answer.json()["unsubscribe"] is False
    reset = {
        "to": "ada@example.org",
        "template": {"key": "password_reset", "variables": {"action_url": "https://a.example"}},
    }
    answer = await api.post("/v1/emails", json={**reset, "lane": "bulk"})
    assert answer.json()["unsubscribe"] is False


@pytest.mark.parametrize(
    "fields",
    [
        {"lane": "critical", "category": "news"},
        {},
        {"category": "news", "to": ["ada@example.org", "bob@example.org"]},
        {"category": "news", "headers": {"list-unsubscribe": "<mailto:no@academy.example>"}},
        {"category": "news", "subject": None, "text": None, "template": {"key": "password_reset"}},
    ],
)
async def test_asking_for_a_link_where_there_can_be_none_is_refused(
    api: httpx.AsyncClient, fields: dict[str, object]
) -> None:
    answer = await api.post("/v1/emails", json={**HELLO, **fields, "unsubscribe": True})
    assert answer.status_code == 422
    assert "/unsubscribe" in {fault["pointer"] for fault in answer.json()["errors"]}


async def test_a_test_key_unsubscribes_nobody_from_live_mail(
    api: httpx.AsyncClient, sink: Sink, make_key: MakeKey
) -> None:
    live = await link_of(api, sink, to="ada@example.org")
    await stranger(api, "POST", live)
    mine = {"Authorization": f"Bearer {await make_key(mode='test')}"}
    assert (await api.get("/v1/suppressions", headers=mine)).json()["items"] == []
