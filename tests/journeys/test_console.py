"""A person runs it from a browser: real Chromium over the real service, and every page looked at."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Locator, Page, expect
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.browser import opened
from tests.journeys.house import House, house

pytestmark = pytest.mark.timeout(400)  # a browser may have to be fetched first

PATIENCE = 45_000  # milliseconds
DESK = {"width": 1280, "height": 860}, "light"
TELEPHONE = {"width": 390, "height": 844}, "dark"
BODY = {"team_size": 8, "topic": "our launch", "duration_minutes": 30, "setting": "remote", "goals": ["trust"]}
LONG = "A subject that goes on and on, as those of quarterly reports and their forwarded replies do, " * 2

# Text that stands beyond the edge of the screen, where nothing but a code block may be scrolled to.
BEYOND = """() => [...document.querySelectorAll('body *')]
    .filter(each => !each.closest('pre, .unseen, .skip, thead, svg, iframe') && each.getClientRects().length)
    .filter(each => each.getBoundingClientRect().right > innerWidth + 1).map(each => each.outerHTML.slice(0, 160))"""


@asynccontextmanager
async def visitor(home: House, key: str, size: Any, scheme: Any) -> AsyncIterator[Page]:
    """A page that signed in by keyboard alone; whatever the browser complained of is a failure."""
    wrong: list[str] = []
    async with opened() as browser:
        context = await browser.new_context(viewport=size, color_scheme=scheme)
        context.set_default_timeout(PATIENCE)
        page = await context.new_page()
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("console", lambda told: wrong.append(told.text) if told.type == "error" else None)
        page.on("request", lambda asked: None if asked.url.startswith((home.url, "data:")) else wrong.append(asked.url))
        await page.goto(f"{home.url}/console/sign-in")
        await page.keyboard.type(key)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name="Overview")).to_be_visible(timeout=PATIENCE)
        yield page
    assert not wrong


def operator(home: House, key: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=home.url, headers={"Authorization": f"Bearer {key}"}, timeout=60)


async def accept(client: httpx.AsyncClient, path: str, body: Any, method: str = "POST") -> dict[str, Any]:
    answer = await client.request(method, path, json=body)
    assert answer.is_success, answer.text
    told: dict[str, Any] = answer.json() if answer.content else {}
    return told


async def press(page: Page, name: str) -> None:
    """Press a button as who has no mouse."""
    await press_on(page, page.get_by_role("button", name=name, exact=True))


async def press_on(page: Page, wanted: Locator) -> None:
    """Press a button or a link by keyboard: focus it, see that the focus shows, hit Enter."""
    await wanted.focus()
    await page.keyboard.press("Shift+Tab")
    await page.keyboard.press("Tab")
    assert await wanted.evaluate("each => getComputedStyle(each).outlineStyle") != "none"
    await page.keyboard.press("Enter")


async def keeps_focus(page: Page, url: str) -> None:
    """A list that is shown anew leaves the focus where it was."""
    await page.goto(url)
    await page.locator("td a").first.focus()
    focused = await page.evaluate("document.querySelector('#live').dataset.seen = document.activeElement.id")
    await expect(page.locator("#live[data-seen]")).to_have_count(0, timeout=PATIENCE)
    assert focused == await page.evaluate("document.activeElement.id") != ""


async def test_a_mail_is_seen_to_pass_previewed_and_sent_once_more(
    tmp_path: Path, database: str, redis_url: str, mailbox: Any
) -> None:
    smtp = {"SMTP_HOST": mailbox.host, "SMTP_PORT": str(mailbox.port)}
    async with house(tmp_path, database, redis_url, **smtp) as home:
        key = await home.key(scopes=["*", "admin"])
        await home.key("shop")
        await home.start_api()
        async with operator(home, key) as client, visitor(home, key, *DESK) as page:
            await expect(page.get_by_text("No worker is running.")).to_be_visible(timeout=PATIENCE)
            await home.start_worker()
            mail = {"to": "ada@example.org", "subject": "Hello Ada", "text": "x", "html": "<p>A word to preview</p>"}
            told = await accept(client, "/v1/emails", mail)
            # live: nobody reloads the page
            await expect(page.locator(".tile").first).to_contain_text("1", timeout=PATIENCE)
            await keeps_focus(page, f"{home.url}/console/tasks")
            await page.keyboard.press("/")  # from anywhere on the page
            await page.keyboard.type(told["id"])
            await page.keyboard.press("Enter")
            await expect(page.get_by_role("heading", name="Hello Ada")).to_contain_text("sent", timeout=PATIENCE)
            preview = page.frame_locator("iframe.mail")
            await expect(preview.get_by_text("A word to preview")).to_be_visible(timeout=PATIENCE)
            await page.locator("details.ask summary").focus()
            await page.keyboard.press("Enter")
            await press(page, "Send a copy")
            await expect(page.get_by_role("status")).to_contain_text("Sent as a new email", timeout=PATIENCE)
            assert len(await mailbox.wait(2, timeout=60)) == 2
            await press_on(page, page.get_by_role("link", name=re.compile("Switch")))
            await press_on(page, page.get_by_role("row", name="shop").get_by_role("button", name="Switch"))
            await expect(page.locator(".tenant")).to_contain_text("shop", timeout=PATIENCE)
            await press_on(page, page.get_by_role("link", name="Emails", exact=True))
            await expect(page.get_by_text("No email yet.")).to_be_visible(timeout=PATIENCE)
            await press(page, "Sign out")
            await expect(page.get_by_role("heading", name="Sign in")).to_be_visible(timeout=PATIENCE)


async def furnish(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    """Something for every page to show, with words as long as they come."""
    told = await accept(
        client, "/v1/emails", {"to": f"{'a' * 60}@{'b' * 60}.example.org", "subject": LONG, "text": "x"}
    )
    last = await accept(client, "/v1/emails", {"to": "ada@example.org", "subject": LONG, "text": "x"})
    await accept(client, f"/v1/emails/{last['id']}/cancel", {})  # so it can be sent once more
    await accept(client, "/v1/organizations/" + "globex-holdings-" * 4, {"plan": "team", "trust_score": 80}, "PUT")
    body = {"type": "activities.generate", "organization_id": "globex-holdings-" * 4, "input": BODY}
    await accept(client, "/v1/jobs", body)
    await accept(client, "/v1/users/ada", {"email": "ada@example.org"}, "PUT")
    await accept(client, "/v1/suppressions", {"address": f"{'c' * 60}@{'d' * 60}.example.org", "note": LONG})
    await accept(client, "/v1/senders", {"domain": f"{'d' * 60}.example.org"})
    await accept(
        client, "/v1/notifications", {"type": "prompt.published", "recipients": {"users": ["ada"]}, "data": {}}
    )
    hook = {"url": f"https://hooks.example.org/{'long-' * 30}", "events": ["email.bounced", "email.failed"]}
    endpoint = await accept(client, "/v1/webhooks", hook)
    await accept(client, f"/v1/webhooks/{endpoint['id']}/test", {})
    bulk = {
        "name": LONG,
        "template": {"key": "custom"},
        "scheduled_at": (datetime.now(UTC) + timedelta(days=1)).isoformat(),
    }
    person = {"to": "ada@example.org", "variables": {"subject": "Hello", "message": "Hi."}}
    await accept(client, "/v1/emails/bulk", bulk | {"recipients": [person]})
    error = json.dumps({"type": "Refused", "reason": LONG})
    dead = "UPDATE messages SET state = 'dead', finished_at = clock_timestamp(), error = :error WHERE id = :id"
    async with engine.begin() as connection:
        await connection.execute(text(dead), {"error": error, "id": told["task_id"]})


async def every_page(page: Page, url: str) -> list[str]:
    """The sections, and one of each thing that they list."""
    places = await page.eval_on_selector_all("nav a, .tenant a", "all => all.map(each => each.getAttribute('href'))")
    found = list(places)
    for place in places:
        await page.goto(url + place)
        links = await page.eval_on_selector_all("td a", "all => all.map(each => each.getAttribute('href'))")
        found += links[:1]
    endpoint = next(link for link in found if link.startswith("/console/webhooks/"))
    await page.goto(url + endpoint)
    delivery = await page.locator("td a").first.get_attribute("href")
    return [*found, str(delivery), "/console/find?q=nosuch", "/schema", "/"]


async def selects_all(page: Page, url: str) -> None:
    """The box in the head of the dead letters selects each of them, and a question follows."""
    await page.goto(f"{url}/console/dead-letters")
    await page.get_by_label("Select all on this page").check()
    chosen = page.locator("input[name=id]:checked")
    assert await chosen.count() == await page.locator("input[name=id]").count() > 0
    await press(page, "Requeue selected…")
    await expect(page.get_by_role("heading", name="Requeue 1 task?")).to_be_visible(timeout=PATIENCE)
    found = await Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa"]})
    assert not found.violations_count, found.generate_report()[:1500]


@pytest.mark.timeout(900)  # some forty pages, each at two sizes
async def test_every_page_fits_a_telephone_and_can_be_read_in_the_light_and_in_the_dark(
    tmp_path: Path, database: str, redis_url: str, engine: AsyncEngine
) -> None:
    async with house(tmp_path, database, redis_url) as home:
        key = await home.key(scopes=["*", "admin"])
        await home.start_api()
        async with operator(home, key) as client:
            await furnish(client, engine)
        wrong = []
        for size, scheme in (DESK, TELEPHONE):
            async with visitor(home, key, size, scheme) as page:
                places = await every_page(page, home.url)
                assert len(places) >= 30, places
                await selects_all(page, home.url)
                for place in places:
                    await page.goto(home.url + place)
                    await page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
                    wrong += [f"{place} at {size['width']}: {each}" for each in await page.evaluate(BEYOND)]
                    found = await Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa"]})
                    if found.violations_count:
                        wrong.append(f"{place} at {size['width']}, {scheme}: {found.generate_report()[:1500]}")
        assert not wrong, "\n".join(wrong)
