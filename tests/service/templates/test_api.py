"""Templates that tenants write: numbered versions, one of them published, a mail stays what it was accepted as."""

from typing import Any

import httpx
import pytest

from callboard_workers.context import Correlation, correlation
from callboard_workers.runtime import Runtime
from service.emails import in_process
from service.emails.schemas import EmailRequest
from service.settings import Settings
from service.templates.schemas import TemplateRef
from service.templates.tenant.sandbox_pool import Killed, Renderers
from tests.service.conftest import MakeKey, working
from tests.service.emails.posting import execute_sql, look, mailing_to, work

NAME = {"name": {"description": "How to greet the reader.", "example": "Ada", "required": True}}


@pytest.fixture
def settings(settings: Settings, mailbox: Any) -> Settings:
    return mailing_to(mailbox, settings)


def words(subject: str, body: str = "<p>{{ name }}</p>") -> dict[str, str]:
    return {"subject": subject, "html": body}


async def put(api: httpx.AsyncClient, key: str, contents: dict[str, Any], **more: Any) -> dict[str, Any]:
    answer = await api.put(f"/v1/templates/{key}", json={"contents": contents, "variables": NAME, **more})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def publish(api: httpx.AsyncClient, key: str, version: int | None = None) -> dict[str, Any]:
    answer = await api.post(f"/v1/templates/{key}/publish", json={} if version is None else {"version": version})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def send(api: httpx.AsyncClient, key: str, **more: Any) -> httpx.Response:
    template = {"key": key, "variables": {"name": "Ada"}, **more}
    return await api.post("/v1/emails", json={"to": "ada@example.org", "template": template})


async def test_a_version_is_a_draft_until_it_is_published_and_a_mail_keeps_the_one_it_was_accepted_with(
    api: httpx.AsyncClient, mailbox: Any
) -> None:
    first = await put(api, "harbour", {"en": words("One for {{ name }}")})
    assert (first["version"], first["published"], first["source"]) == (1, None, "own")
    assert (await send(api, "harbour")).status_code == 422
    assert (await publish(api, "harbour"))["published"] == 1
    one = (await send(api, "harbour")).json()
    assert one["template"] == {"key": "harbour", "version": 1, "locale": "en"}
    await put(api, "harbour", {"en": words("Two for {{ name }}")})
    still = (await send(api, "harbour")).json()
    assert still["template"]["version"] == 1
    await publish(api, "harbour")
    two = (await send(api, "harbour")).json()
    named = (await send(api, "harbour", version=1)).json()
    for mail in (one, two, named):
        await work(mail)
    assert [mail["Subject"] for mail in mailbox.messages] == ["One for Ada", "Two for Ada", "One for Ada"]
    shown = (await api.get(f"/v1/emails/{two['id']}/content")).json()
    assert (shown["subject"], shown["html"], shown["text"]) == ("Two for Ada", "<p>Ada</p>", "Ada\n")
    assert (await send(api, "harbour", version=9)).status_code == 422
    assert (await publish(api, "harbour", 1))["published"] == 1
    told = (await api.get("/v1/templates/harbour?version=2")).json()
    assert [(each["version"], each["published"]) for each in told["versions"]] == [(2, False), (1, True)]
    assert told["contents"]["en"]["subject"] == "Two for {{ name }}"


async def test_a_draft_hides_neither_the_built_in_nor_the_published_template(api: httpx.AsyncClient) -> None:
    built_in = (await api.get("/v1/templates/welcome")).json()
    await put(api, "welcome", {"en": words("Draft")})

    async def seen() -> tuple[Any, Any]:
        listed = (await api.get("/v1/templates")).json()["items"]
        [one] = [each for each in listed if each["key"] == "welcome"]
        return one, (await api.get("/v1/templates/welcome")).json()

    one, shown = await seen()
    assert (one["source"], one["published"], one["newest"], one["variables"]) == (
        "built-in",
        None,
        1,
        shown["variables"],
    )
    assert shown == built_in | {"newest": 1, "versions": shown["versions"]}
    assert [each["version"] for each in shown["versions"]] == [1]
    assert (await api.get("/v1/templates/welcome?version=1")).json()["contents"]["en"]["subject"] == "Draft"
    await publish(api, "welcome")
    await put(api, "welcome", {"en": words("Draft again")})
    one, shown = await seen()
    assert (one["subject"], one["published"], one["newest"]) == ("Draft", 1, 2)
    assert shown["contents"]["en"]["subject"] == "Draft"
    zero = await api.get("/v1/templates/welcome?version=0")
    assert (zero.status_code, zero.json()["source"], zero.json()["published"]) == (200, "built-in", 1)
    await put(api, "harbour", {"en": words("Own")})
    assert (await api.get("/v1/templates/harbour?version=0")).status_code == 404
    assert (await api.get("/v1/templates/harbour")).json()["contents"]["en"]["subject"] == "Own"


async def test_a_language_tag_may_be_written_with_an_underscore(api: httpx.AsyncClient) -> None:
    await put(api, "harbour", {"en": words("Hello"), "de_AT": words("Servus")}, default_locale="en")
    await publish(api, "harbour")
    for wanted in ("de_AT", "de-AT", "de-at", "DE_at"):
        body = {"variables": {"name": "Ada"}, "locale": wanted}
        response = await api.post("/v1/templates/harbour/preview", json=body)
        assert response.json()["subject"] == "Servus", wanted
    twice = await api.put("/v1/templates/x", json={"contents": {"de_AT": words("a"), "de-at": words("b")}})
    assert "one language" in twice.text


async def test_the_same_words_again_are_the_same_version(api: httpx.AsyncClient) -> None:
    for _ in range(2):
        assert (await put(api, "harbour", {"en": words("One")}))["newest"] == 1
    assert (await put(api, "harbour", {"en": words("Two")}))["newest"] == 2


@pytest.mark.parametrize(
    ("wanted", "subject"),
    [("de-AT", "Servus"), ("de-CH", "Hallo"), ("DE", "Hallo"), ("fr", "Hello"), (None, "Hello")],
)
async def test_the_language_nearest_to_the_wanted_one_is_taken(
    api: httpx.AsyncClient, wanted: str | None, subject: str
) -> None:
    await put(api, "harbour", {"en": words("Hello"), "de": words("Hallo"), "de-AT": words("Servus")})
    await publish(api, "harbour")
    answer = await api.post("/v1/templates/harbour/preview", json={"variables": {"name": "Ada"}, "locale": wanted})
    assert answer.json()["subject"] == subject


async def test_a_built_in_template_is_replaced_in_one_language_for_one_tenant(
    api: httpx.AsyncClient, make_key: MakeKey
) -> None:
    await put(api, "welcome", {"de": words("Willkommen, {{ name }}")}, default_locale="en")
    await publish(api, "welcome")
    filled = {"variables": {"name": "Ada"}}
    german = await api.post("/v1/templates/welcome/preview", json={**filled, "locale": "de"})
    assert german.json()["subject"] == "Willkommen, Ada"
    english = await api.post("/v1/templates/welcome/preview", json={**filled, "locale": "en"})
    assert english.json()["subject"] == "Welcome, Ada"
    other = {"Authorization": f"Bearer {await make_key(tenant='other')}"}
    theirs = await api.post("/v1/templates/welcome/preview", json={**filled, "locale": "de"}, headers=other)
    assert theirs.json()["subject"] == "Welcome, Ada"
    assert (await api.get("/v1/templates/welcome", headers=other)).json()["source"] == "built-in"
    items = (await api.get("/v1/templates")).json()["items"]
    assert [(item["key"], item["source"]) for item in items if item["key"] == "welcome"] == [("welcome", "own")]
    assert len({item["key"] for item in items}) == len(items) == 6
    assert (await api.post("/v1/templates/welcome/unpublish")).json()["published"] is None
    again = await api.post("/v1/templates/welcome/preview", json={**filled, "locale": "de"})
    assert again.json()["subject"] == "Welcome, Ada"


async def test_all_missing_variables_are_named(api: httpx.AsyncClient) -> None:
    body = '<p>{{ first }} {{ last }}</p><a href="{{ link }}">go</a>'
    answer = await api.put("/v1/templates/harbour", json={"contents": {"en": words("Hi {{ name }}", body)}})
    assert answer.status_code == 200
    await publish(api, "harbour")
    template = {"key": "harbour", "variables": {"link": "javascript:alert(1)"}}
    refused = await api.post("/v1/emails", json={"to": "ada@example.org", "template": template})
    assert refused.status_code == 422
    assert {fault["pointer"] for fault in refused.json()["errors"]} == {
        f"/template/variables/{name}" for name in ("first", "last", "name", "link")
    }


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"contents": {}}, {"/contents"}),
        ({"contents": {"en": {"subject": "s"}}}, {"/contents/en"}),
        ({"contents": {"en": {"subject": "s", "html": "{{ x.__class__ }}"}}}, {"/contents/en/html"}),
        (
            {"contents": {"en": {"subject": "{% if %}", "html": "{% include 'x' %}", "text": "{{ 'x' * 9 ** 9 }}"}}},
            {"/contents/en/subject", "/contents/en/html", "/contents/en/text"},
        ),
        ({"contents": {"de": words("s")}}, {"/default_locale"}),
        ({"contents": {"en": words("s"), "no/such": words("s")}}, {"/contents/no~1such"}),
        ({"contents": {"en": words("s")}, "variables": {"a-b": {}}}, {"/variables"}),
        ({"contents": {"en": words("s")}, "variables": {"a": {"type": "x"}}}, {"/variables/a/type"}),
        ({"contents": {"en": {"subject": "s", "mjml": "<p>no"}}}, {"/contents/en/mjml"}),
    ],
)
async def test_what_cannot_be_a_template_is_refused_with_its_place(
    api: httpx.AsyncClient, body: dict[str, Any], pointers: set[str]
) -> None:
    answer = await api.put("/v1/templates/harbour", json=body)
    assert answer.status_code == 422, answer.text
    assert {fault["pointer"] for fault in answer.json()["errors"]} == pointers
    assert (await api.get("/v1/templates/harbour")).status_code == 404


async def test_a_preview_for_a_frame_can_only_be_looked_at_and_nothing_is_sent(api: httpx.AsyncClient) -> None:
    await put(api, "harbour", {"en": words("Hi", "<script>alert(1)</script><p>{{ name }}</p>")})
    filled = {"variables": {"name": "<b>"}, "version": 1}
    answer = await api.post("/v1/templates/harbour/preview", json=filled, headers={"Accept": "text/html"})
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "&lt;b&gt;" in answer.text
    assert await execute_sql("SELECT 1 FROM emails UNION ALL SELECT 1 FROM messages") == []


async def test_a_template_that_fails_when_it_is_filled_in_fails_its_mail_alone(api: httpx.AsyncClient) -> None:
    body = "{% for a in range(1000) %}{% for b in range(1000) %}xxxxxxxxxx{{ name }}{% endfor %}{% endfor %}"
    await put(api, "harbour", {"en": words("Hi", body)})
    await publish(api, "harbour")
    mail = (await send(api, "harbour")).json()
    await work(mail)
    told = await look(api, mail)
    assert (told["status"], told["error"]["code"]) == ("failed", "content_refused")


async def test_a_template_that_takes_too_long_again_and_again_is_let_alone(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def killed(_: Any, job: Any, *more: Any, **named: Any) -> Any:
        if job.name is None:
            return await whole(_, job, *more, **named)
        asked.append(job.name)
        raise Killed("it takes too long")

    whole = Renderers.ask
    await put(api, "harbour", {"en": words("Hi")})
    await publish(api, "harbour")
    monkeypatch.setattr(Renderers, "ask", killed)
    for _ in range(5):
        answer = await api.post("/v1/templates/harbour/preview", json={"variables": {"name": "Ada"}})
        assert answer.status_code == 422
    assert len(asked) == 3


async def test_a_written_version_cannot_be_changed_in_the_database(api: httpx.AsyncClient) -> None:
    await put(api, "harbour", {"en": words("One")})
    with pytest.raises(Exception, match="make another one"):
        await execute_sql("UPDATE template_versions SET contents = '{}'")


async def test_code_in_the_process_uses_the_tenants_template_too(api: httpx.AsyncClient, mailbox: Any) -> None:
    await put(api, "harbour", {"en": words("Hi {{ name }}")})
    await publish(api, "harbour")
    (row,) = await execute_sql("SELECT tenant_id FROM templates")
    here = correlation.set(Correlation(tenant_id=row["tenant_id"]))
    try:
        request = EmailRequest(to="ada@example.org", template=TemplateRef(key="harbour", variables={"name": "Ada"}))
        await in_process.send(request)
        async with working(Runtime.of_loop()) as runtime:
            assert runtime.engine is not None
            async with runtime.engine.begin() as connection:
                id = await in_process.enqueue(connection, request)
    finally:
        correlation.reset(here)
    await work({"task_id": str(id)})
    assert [mail["Subject"] for mail in mailbox.messages] == ["Hi Ada", "Hi Ada"]
