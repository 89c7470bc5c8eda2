"""A browser that is signed in, over the real application."""

import html
import re
from collections.abc import AsyncIterator

import httpx
import pytest

from service.settings import Settings
from tests.service.conftest import MakeKey, client_of


@pytest.fixture
async def api(settings: Settings, make_key: MakeKey) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API with an operator's key, and the application that `browser` visits too."""
    async with client_of(settings) as client:
        client.headers["Authorization"] = f"Bearer {await make_key('*', 'operator')}"
        yield client


@pytest.fixture
async def browser(api: httpx.AsyncClient) -> AsyncIterator[httpx.AsyncClient]:
    """Signed in by the form, with nothing but its cookie."""
    async with httpx.AsyncClient(transport=api._transport, base_url="http://callboard.test") as client:
        key = api.headers["Authorization"].removeprefix("Bearer ")
        answer = await client.post("/console/sign-in", data={"key": key, "next": "/console"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/console")
        yield client
        client._transport = httpx.ASGITransport(lambda *_: None)  # the application outlives this client


async def token(browser: httpx.AsyncClient) -> str:
    """What the forms of this session carry, read from a page as a browser has it."""
    page = (await browser.get("/console/emails")).text
    found = re.search(r'name="csrf" value="([0-9a-f]+)"', page)
    assert found is not None
    return found[1]


async def press(browser: httpx.AsyncClient, path: str, **fields: object) -> httpx.Response:
    """Send a form of a page."""
    return await browser.post(path, data={"csrf": await token(browser), **fields})


async def confirm(browser: httpx.AsyncClient, path: str, **fields: object) -> tuple[str, httpx.Response]:
    """Send a form, read the question that it leads to, and confirm: the question's text, and the answer after it."""
    asked = await press(browser, path, **fields)
    assert asked.status_code == 200, asked.text
    action = re.search(r'<section class="card question">.*?<form method="post" action="([^"]+)"', asked.text, re.DOTALL)
    assert action is not None, "there is no question"
    question = asked.text.partition('<section class="card question">')[2]
    hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', question)
    sent: dict[str, list[str]] = {}
    for name, value in hidden:
        sent.setdefault(name, []).append(html.unescape(value))
    return html.unescape(re.sub(r"<[^>]+>", "", question)), await browser.post(action[1], data=sent)
