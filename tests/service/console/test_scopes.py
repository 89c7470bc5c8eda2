"""Each page and verb of the console requires the scope of the API route that does the same."""

import re
from collections.abc import Iterator

import httpx
import pytest
from litestar import Litestar
from litestar.routes import HTTPRoute

from service.app import create_app
from service.console.scopes import TWINS
from service.console.visiting import signed_in
from service.settings import Settings
from service.web.auth import SCOPES
from tests.service.conftest import MakeKey

ID = "00000000000070008000000000000000"
REQUIRED = {route: twin for route, twin in TWINS.items() if twin is not None}


@pytest.fixture
def app(settings: Settings) -> Litestar:
    return litestar_of(create_app(settings))


def litestar_of(app: object) -> Litestar:
    """The Litestar application inside the layers that are wrapped around it."""
    while not isinstance(app, Litestar):
        app = app.app  # type: ignore[attr-defined]
    return app


def handlers(app: Litestar) -> Iterator[tuple[str, object]]:
    for route in app.routes:
        for handler in route.route_handlers if isinstance(route, HTTPRoute) else []:
            for method in handler.http_methods - {"OPTIONS"}:
                yield f"{method} {re.sub(r':[a-z]+}', '}', route.path)}", handler


def test_every_route_behind_the_sign_in_declares_its_scope(app: Litestar) -> None:
    found = {name for name, handler in handlers(app) if signed_in in handler.resolve_guards()}  # type: ignore[attr-defined]
    assert found == TWINS.keys()


def test_each_scope_is_that_of_the_api_route_that_does_the_same(app: Litestar) -> None:
    known = {name: handler.opt.get(SCOPES) for name, handler in handlers(app)}  # type: ignore[attr-defined]
    wrong = {name: twin for name, twin in REQUIRED.items() if known.get(twin.route) != (twin.scope,)}
    assert not wrong


async def visit(api: httpx.AsyncClient, key: str, routes: list[str]) -> dict[str, httpx.Response]:
    """Sign in with a key and ask for each route, a form with the token of the session where it takes one."""
    async with httpx.AsyncClient(transport=api._transport, base_url="http://callboard.test") as browser:
        assert (await browser.post("/console/sign-in", data={"key": key})).status_code == 303
        found = {}
        for route in routes:
            method, path = route.split(" ")
            place = re.sub(r"{\w+}", ID, path.replace("{verb}", "cancel"))
            overview = (await browser.get("/console")).text
            csrf = re.search(r'name="csrf" value="(\w+)"', overview)
            assert csrf is not None
            data = {"csrf": csrf[1]} if method == "POST" else None
            found[route] = await browser.request(method, place, data=data)
        browser._transport = httpx.ASGITransport(lambda *_: None)  # type: ignore[arg-type]  # the application goes on
        return found


async def test_the_scope_operator_alone_opens_no_page_of_objects_and_no_verb(
    api: httpx.AsyncClient, make_key: MakeKey
) -> None:
    answers = await visit(api, await make_key("operator"), [*REQUIRED])
    assert {route: answer.status_code for route, answer in answers.items()} == dict.fromkeys(REQUIRED, 403)
    assert {route for route, twin in REQUIRED.items() if f"lacks {twin.scope}" not in answers[route].text} == set()
    overview = (await visit(api, await make_key("operator"), ["GET /console"]))["GET /console"]
    assert overview.status_code == 200
    assert not re.findall(r'href="/console/(?!sign-out|static|find)[^"]', overview.text), "only what the key may open"


@pytest.mark.parametrize("scope", sorted({twin.scope for twin in REQUIRED.values()}))
async def test_a_scope_opens_exactly_the_routes_that_require_it(
    api: httpx.AsyncClient, make_key: MakeKey, scope: str
) -> None:
    answers = await visit(api, await make_key("operator", scope), [*REQUIRED])
    opened = {route for route, answer in answers.items() if answer.status_code != 403}
    assert opened == {route for route, twin in REQUIRED.items() if twin.scope == scope}
    assert all(answer.status_code < 500 for answer in answers.values())
