"""A task tracker moves here: a status change is mailed and told live, to one or to an organization; nothing is lost."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.conftest import Mailbox
from tests.journeys.house import House, house
from tests.journeys.live import by_sse, by_websocket
from tests.wire.process import client as stock_client

# What the tracker has of Celery: the sweep that it ran each minute, more often so that nobody waits.
BEAT = """
from celery import Celery

app = Celery("tracker", broker="{redis_url}")
app.conf.beat_schedule = {{"sweep": {{"task": "emails.process_queue", "schedule": 1.0}}}}
"""


class App:
    """The app: it knows the API's address and its key, and nothing else."""

    def __init__(self, house: House, client: httpx.AsyncClient) -> None:
        self.house, self.client = house, client

    async def changed(self, task: int, status: str, **to: Any) -> dict[str, Any]:
        """Tell of a status change."""
        body = {
            "type": "task.status_changed",
            "recipients": to,
            "channels": ["inbox", "email"],
            "category": "tasks",
            "data": {"title": f"Task {task} is {status}", "task": task, "status": status},
        }
        answer = await self.client.post("/v1/notifications", json=body)
        assert answer.status_code == 202, answer.text
        told: dict[str, Any] = answer.json()
        return told

    async def token(self, user: str) -> str:
        answer = await self.client.post(f"/v1/users/{user}/stream-token", json={})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["token"])

    async def until_sent(self, told: dict[str, Any]) -> dict[str, Any]:
        """Wait until every mail of a notification is sent, which is written back by itself."""

        async def there() -> Any:
            found = (await self.client.get(f"/v1/notifications/{told['id']}")).json()
            email = found["counts"]["channels"]["email"]
            done = found["status"] == "completed" and email["states"] == {"sent": email["queued"]}
            return found if done else None

        found: dict[str, Any] = await self.house.eventually(there, f"{told['id']} is sent", 60)
        return found


@pytest.fixture
async def app(tmp_path: Path, database: str, redis_url: str, mailbox: Mailbox) -> AsyncIterator[App]:
    where = {"SMTP_HOST": mailbox.host, "SMTP_PORT": str(mailbox.port)}
    async with house(tmp_path, database, redis_url, **where) as home:
        key = await home.key("tracker")
        await home.start_api()
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=home.url, headers=headers, timeout=60) as client:
            for user in ("ada", "bob"):
                answer = await client.put(f"/v1/users/{user}", json={"email": f"{user}@tracker.example"})
                assert answer.status_code == 200, answer.text
                assert (await client.put(f"/v1/organizations/acme/members/{user}")).status_code == 204
            yield App(home, client)


async def test_a_change_is_mailed_and_told_live_and_a_reconnect_loses_nothing(
    app: App, mailbox: Mailbox, redis_url: str
) -> None:
    await app.house.start_worker()
    stream = "/v1/users/ada/stream"
    socket = f"{app.house.url}/v1/users/ada/ws?token={await app.token('ada')}"
    async with by_sse(app.client, stream) as sse, by_websocket(socket) as ws:
        sent = await app.until_sent(await app.changed(1, "in review", users=["ada"]))
        assert sent["counts"]["channels"]["email"]["states"] == {"sent": 1}
        stock = stock_client(redis_url)
        task = "notifications.broadcast_notification"
        await asyncio.to_thread(stock.send_task, task, args=["acme", "Release on Friday"])
        await sse.until(2)
        await ws.until(2)
        assert sse.ids == ws.ids == ["1", "2"]
        assert [data["data"]["title"] for event, _, data in ws.told if event == "notification"] == [
            "Task 1 is in review",
            "Release on Friday",
        ]
        assert [told for told in sse.told if told[0] == "notification"] == [
            told for told in ws.told if told[0] == "notification"
        ]
        await asyncio.to_thread(app.house.kill, "api")
        async with asyncio.timeout(60):
            await sse.over.wait()
            await ws.over.wait()
    assert sorted(str(mail["To"]) for mail in await mails(mailbox, 3)) == [
        "ada@tracker.example",
        "ada@tracker.example",
        "bob@tracker.example",
    ]
    # While nobody could listen, something happened.
    await asyncio.to_thread(stock.send_task, "notifications.send_notification", args=["ada", "While you were away"])
    await mailbox.wait(4, 60)
    await app.house.start_api()
    async with by_sse(app.client, stream, "2") as sse, by_websocket(f"{socket}&last_event_id=1") as ws:
        await sse.until(1)
        await ws.until(2)
        assert (sse.ids, ws.ids) == (["3"], ["2", "3"])
        assert await asyncio.to_thread(app.house.stop, "api") == 0
        async with asyncio.timeout(60):
            await sse.over.wait()
            await ws.over.wait()
        assert ws.close_code == 1012
        assert "refused to gracefully stop" not in app.house.log("api")


async def mails(mailbox: Mailbox, count: int) -> list[Any]:
    await mailbox.wait(count, 60)
    return list(mailbox.messages)


async def test_the_trackers_own_beat_sweeps_up_what_lost_its_doorbell(
    app: App, mailbox: Mailbox, redis_url: str, engine: AsyncEngine, tmp_path: Path
) -> None:
    told = await app.changed(2, "done", users=["bob"], organization="acme")
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    async with engine.begin() as connection:  # the sweeper of the worker would not come to it by itself
        await connection.execute(text("UPDATE messages SET ring_at = clock_timestamp() + interval '1 hour'"))
    await app.house.start_worker()
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE messages SET ring_at = clock_timestamp() - interval '1 s'"))
    (tmp_path / "tracker.py").write_text(BEAT.format(redis_url=redis_url))
    app.house.environ["PYTHONPATH"] = str(tmp_path)
    app.house.start("beat", "celery", "-A", "tracker", "beat", "-s", str(tmp_path / "beat"), "--pidfile=")
    sent = await app.until_sent(told)
    assert sent["counts"]["overlapping"] == 1
    assert len(await mails(mailbox, 2)) == 2
