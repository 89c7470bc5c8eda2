"""An app is told by signed calls what became of its mail and its notifications, though the worker is killed."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.conftest import Mailbox
from tests.journeys.house import house
from tests.service.egress.scripted import held, reply, scripted
from tests.service.webhooks.standard import verified

MAIL = {"from": "hello@academy.example", "to": "ada@example.org", "subject": "Welcome", "text": "Hello Ada."}

# What the passing of thirty seconds does to a worker that is dead.
LAPSE = text("UPDATE messages SET lease_until = clock_timestamp() - interval '1 s' WHERE state = 'running'")


async def test_a_call_that_a_kill_cut_off_comes_again_with_the_same_id(
    tmp_path: Path, database: str, redis_url: str, mailbox: Mailbox, engine: AsyncEngine
) -> None:
    never = asyncio.Event()
    where = {"SMTP_HOST": mailbox.host, "SMTP_PORT": str(mailbox.port), "OUTBOUND_PRIVATE": "true"}
    async with (
        scripted(held(never, reply(200)), reply(200)) as app,
        house(tmp_path, database, redis_url, **where) as home,
    ):
        key = await home.key()
        await home.start_api()
        async with httpx.AsyncClient(base_url=home.url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as api:
            endpoint = (await api.post("/v1/webhooks", json={"url": app.url(), "events": ["email.sent"]})).json()
            mail = (await api.post("/v1/emails", json=MAIL)).json()
            await home.start_worker("first")
            await app.wait(1, 60)
            home.kill("first")
            async with engine.begin() as connection:
                await connection.execute(LAPSE)
            await home.start_worker("second")
            await app.wait(2, 60)

            async def delivered() -> Any:
                found = await api.get(f"/v1/webhooks/{endpoint['id']}/deliveries", params={"status": "delivered"})
                return found.json()["items"]

            [told] = await home.eventually(delivered, "the delivery is known to have arrived")
            wanted = {"url": app.url("/told"), "events": ["notification.completed"]}
            listener = (await api.post("/v1/webhooks", json=wanted)).json()
            await api.post("/v1/topics/prompts/followers", json={"users": ["ada", "bob"]})
            note = {"type": "prompt.published", "recipients": {"topics": ["prompts"]}, "exclude": ["bob"]}
            asked = (await api.post("/v1/notifications", json=note)).json()
            await app.wait(3, 60)
            seen = (await api.get(f"/v1/notifications/{asked['id']}")).json()
    first, second = (verified(call, endpoint["secret"]) for call in app.seen[:2])
    third = verified(app.seen[2], listener["secret"])
    assert (app.seen[2].path, third["type"]) == ("/told", "notification.completed")
    same = ("id", "task_id", "request_id", "type", "status", "channels", "created_at", "finished_at")
    assert {name: third["data"][name] for name in same} == {name: seen[name] for name in same}
    assert (third["data"]["counts"]["resolved"], third["data"]["counts"]["excluded"]) == (2, 1)
    assert (
        third["data"]["counts"]["channels"]["inbox"]
        == seen["counts"]["channels"]["inbox"]
        == {"delivered": 1, "muted": 0}
    )
    assert first == second
    assert (first["type"], first["data"]["id"], first["data"]["status"]) == ("email.sent", mail["id"], "sent")
    assert (told["event_id"], told["last_status"]) == (first["id"], 200)
    assert len(mailbox.mails) == 1
