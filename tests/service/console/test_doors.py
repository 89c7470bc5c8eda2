"""Who is let in, what the cookie is worth, and which forms are obeyed."""

from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.console.pages import file
from service.console.sessions import Session, seal, unseal
from service.settings import Settings
from tests.service.conftest import MakeKey
from tests.service.console.conftest import press, token

SECRET = "a secret of tests only"
NONE = "0" * 32
PAGES = ["", "/emails", "/bulk", "/jobs", "/quotas", "/notifications", "/webhooks", "/dead-letters", "/tasks"]
PAGES += ["/templates", "/suppressions", "/domains", "/transports", "/users", "/keys"]


@pytest.mark.parametrize(
    "page", [*PAGES, "/tenants", f"/emails/{NONE}", "/requests/x", "/find?q=a", f"/emails/{NONE}/frame"]
)
async def test_nobody_sees_a_page_without_signing_in(api: httpx.AsyncClient, page: str) -> None:
    answer = await api.get(f"/console{page}", headers={"Authorization": ""})
    assert answer.status_code == 401
    assert 'action="/console/sign-in"' in answer.text


async def test_an_api_key_in_the_header_opens_no_page(api: httpx.AsyncClient) -> None:
    assert (await api.get("/console")).status_code == 401


async def test_only_an_operators_key_signs_in_and_its_cookie_is_closed_to_scripts_and_other_sites(
    api: httpx.AsyncClient, make_key: MakeKey
) -> None:
    async def sign_in(key: str) -> httpx.Response:
        return await api.post("/console/sign-in", data={"key": key})

    nobody, app = await sign_in("cb_live_nonsense"), await sign_in(await make_key("*"))
    assert (nobody.status_code, "unknown" in nobody.text) == (401, True)
    assert (app.status_code, "--scope operator" in app.text) == (403, True)
    assert "set-cookie" not in {*nobody.headers, *app.headers}
    good = await sign_in(f" {await make_key('operator')}\n")
    assert good.status_code == 303
    assert {"HttpOnly", "SameSite=Strict", "Path=/console"} <= set(good.headers["set-cookie"].split("; "))


@pytest.mark.parametrize("place", ["https://evil.example/", "//evil.example", "/console\\@evil.example", "/v1/emails"])
async def test_signing_in_leads_to_a_page_of_the_console_only(
    api: httpx.AsyncClient, make_key: MakeKey, place: str
) -> None:
    answer = await api.post("/console/sign-in", data={"key": await make_key("operator"), "next": place})
    assert answer.headers["location"] == "/console"


async def test_a_revoked_key_ends_its_sessions_and_a_partial_page_is_sent_to_the_door(
    browser: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    assert (await browser.get("/console")).status_code == 200
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE api_keys SET revoked_at = clock_timestamp()"))
    assert (await browser.get("/console")).status_code == 401
    part = await browser.get("/console", headers={"HX-Request": "true"})
    assert (part.status_code, part.headers["hx-redirect"], part.text) == (401, "/console/sign-in", "")


def test_a_cookie_that_was_changed_is_over_or_was_made_for_something_else_is_worth_nothing() -> None:
    session = Session.begin(uuid4(), uuid4())
    made = seal(SECRET, session)
    assert unseal(SECRET, made) == session
    flipped = made[:-2] + ("A" if made[-2] != "A" else "B") + made[-1]
    over = seal(SECRET, Session.begin(uuid4(), uuid4(), lasts=-1))
    for bad in ("", "x", flipped, over, made[:-4], made + "AAAA", seal("another secret of tests", session), "é" * 90):
        assert unseal(SECRET, bad) is None
    assert unseal(SECRET, made, "pass") is None, "a cookie is no pass"
    assert unseal(SECRET, seal(SECRET, session, "pass")) is None, "and a pass no cookie"


async def test_a_form_without_the_token_of_the_session_does_nothing(browser: httpx.AsyncClient) -> None:
    path = f"/console/tasks/{uuid4()}/cancel"
    forged = [
        await browser.post(path, data={}),
        await browser.post(path, data={"csrf": "0" * 40}),
        await browser.post(path, json={"csrf": await token(browser)}),
        await browser.post(path, data={"csrf": await token(browser)}, headers={"Sec-Fetch-Site": "cross-site"}),
    ]
    assert [answer.status_code for answer in forged] == [403] * 4
    assert (await press(browser, path)).status_code == 404, "obeyed: the task is looked up"


async def test_signing_out_ends_the_session_on_the_server_for_whoever_has_a_copy_of_its_cookie(
    browser: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    copy = browser.cookies["callboard_console"]
    assert (await press(browser, "/console/sign-out")).status_code == 303
    assert "callboard_console" not in browser.cookies
    assert (await browser.get("/console")).status_code == 401
    browser.cookies.set("callboard_console", copy, path="/console")
    assert (await browser.get("/console")).status_code == 401
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM console_sessions"))).scalar_one() == 0


async def test_the_link_of_up_signs_in_on_this_machine_only(
    api: httpx.AsyncClient, settings: Settings, engine: AsyncEngine
) -> None:
    async with engine.connect() as connection:
        row = (await connection.execute(text("SELECT id, tenant_id FROM api_keys LIMIT 1"))).one()
    link = "/console/enter?pass=" + seal(settings.secret_key, Session.begin(row.id, row.tenant_id), "pass")
    here = await api.get(link, headers={"Host": "127.0.0.1:8000"})
    assert (here.status_code, "callboard_console=" in here.headers["set-cookie"]) == (200, True)
    for answer in (
        await api.get(link, headers={"Host": "callboard.example"}),
        await api.get(link, headers={"Host": "localhost.evil.example"}),
        await api.get("/console/enter?pass=nonsense", headers={"Host": "localhost"}),
        await api.get("/console/enter", headers={"Host": "localhost"}),
    ):
        assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)


async def test_every_page_forbids_what_it_does_not_need(browser: httpx.AsyncClient) -> None:
    for page in [*PAGES, "/sign-in"]:
        answer = await browser.get(f"/console{page}")
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy, page
        assert "unsafe" not in policy, page
        assert "frame-ancestors 'none'" in policy, page
        assert answer.headers["cache-control"] == "no-store", page
        for forbidden in ("<script>", " style=", "onclick=", 'src="http', 'href="http'):
            assert forbidden not in answer.text, page


async def test_the_files_of_the_pages_come_from_here(api: httpx.AsyncClient) -> None:
    for name, kind in (
        ("console.css", "text/css"),
        ("console.js", "text/javascript"),
        ("htmx.min.js", "text/javascript"),
    ):
        for address, kept in ((file(name), "immutable"), (f"/console/static/{name}?{'0' * 12}", "no-store")):
            answer = await api.get(address)
            assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, kind)
            assert kept in answer.headers["cache-control"], "what another version asks for is not kept as its own"
    for name in ("htmx.LICENSE", "..%2fapi.py", "x"):
        assert (await api.get(f"/console/static/{name}")).status_code == 404
