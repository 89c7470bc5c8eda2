"""Every page and every button of the console, asked for what is another tenant's by its real ids: nothing."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
from sqlalchemy.ext.asyncio import AsyncEngine

from service.console.api import routers
from tests.service.conftest import MakeKey
from tests.service.console.conftest import press
from tests.service.console.test_doors import PAGES
from tests.service.test_routes import Holder, everything

HIDDEN = "a-word-of-theirs"
BODY = {"team_size": 8, "topic": HIDDEN, "setting": "remote"}
UUIDS = re.compile(r"[0-9a-f]{32}")


async def furnish(api: httpx.AsyncClient, key: str) -> dict[str, str]:
    """Have another tenant store one of everything; ids by the section of the console that shows them."""

    async def ask(method: str, path: str, body: Any) -> dict[str, Any]:
        answer = await api.request(method, path, json=body, headers={"Authorization": f"Bearer {key}"})
        assert answer.is_success, answer.text
        told: dict[str, Any] = answer.json()
        return told

    mail = await ask("POST", "/v1/emails", {"to": "ada@example.org", "subject": HIDDEN, "text": HIDDEN})
    await ask("PUT", f"/v1/organizations/{HIDDEN}", {"plan": "team", "trust_score": 80})
    job = await ask("POST", "/v1/jobs", {"type": "activities.generate", "input": BODY, "organization_id": HIDDEN})
    note = await ask("POST", "/v1/notifications", {"type": HIDDEN, "recipients": {"users": ["ada"]}, "data": {}})
    person = {"to": "ada@example.org", "variables": {"subject": "Hello", "message": "Hi."}}
    bulk = await ask("POST", "/v1/emails/bulk", {"name": HIDDEN, "template": {"key": "custom"}, "recipients": [person]})
    hook = await ask("POST", "/v1/webhooks", {"url": f"https://hooks.example.org/{HIDDEN}"})
    delivery = await ask("POST", f"/v1/webhooks/{hook['id']}/test", {})
    await ask("PUT", f"/v1/users/{HIDDEN}", {"email": "ada@example.org"})
    kept = await ask("POST", "/v1/suppressions", {"address": "ada@example.org"})
    return {
        "emails": mail["id"].removeprefix("em_"),
        "jobs": job["id"].removeprefix("jb_"),
        "notifications": note["id"],
        "bulk": bulk["id"],
        "webhooks": hook["id"],
        "delivery": delivery["id"],
        "tasks": mail["task_id"],
        "requests": mail["request_id"],
        "users": HIDDEN,
        "suppressions": kept["id"],
    }


def places(ids: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Every route of the console that is about one thing, as (method, path)."""
    verbs = {"bulk": ("pause", "resume", "cancel"), "tasks": ("cancel", "requeue")}
    for route in routers[0].routes:
        section = re.match(r"/console/(\w+)/\{id", path := route.path)
        for method in sorted(route.methods & {"GET", "POST"}) if section else ():
            name = section[1] if section else ""
            filled = re.sub(r"\{id[^}]*\}", ids[name], path)
            filled = re.sub(r"\{delivery[^}]*\}", ids["delivery"], filled)
            yield from ((method, re.sub(r"\{verb[^}]*\}", verb, filled)) for verb in verbs.get(name, ("",)))


async def test_no_page_and_no_button_tells_or_changes_what_is_another_tenants(
    api: httpx.AsyncClient, browser: httpx.AsyncClient, make_key: MakeKey, engine: AsyncEngine
) -> None:
    ids = await furnish(api, await make_key("*", tenant="theirs"))
    before, wrong = await everything(engine, Holder("theirs", "live")), {}
    asked = sorted(set(places(ids)))
    assert len(asked) >= 20, asked
    for method, path in asked:
        answer = await (browser.get(path) if method == "GET" else press(browser, path, press="x", enabled="no"))
        nothing = answer.headers.get("location", "").endswith(("?done=too-late", "?done=nothing"))
        if not (answer.status_code == 404 or nothing) or HIDDEN in answer.text:
            wrong[f"{method} {path}"] = answer.status_code, answer.text[:200]
    for path in PAGES:
        shown = (await browser.get(f"/console{path}")).text.replace("-", "")
        told = set(UUIDS.findall(shown)) & {found[-32:] for found in (id.replace("-", "") for id in ids.values())}
        if told or HIDDEN.replace("-", "") in shown:
            wrong[path] = 200, str(told)
    group = "queued\nemails.send_email\nunknown"
    await press(browser, "/console/dead-letters/requeue", id=[ids["tasks"]], group=group)
    assert not wrong
    assert await everything(engine, Holder("theirs", "live")) == before
