"""A prompt-sharing app moves its notifications here: who follows several categories of a prompt is told once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from celery import Celery
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.conftest import Mailbox
from tests.journeys.house import House, house
from tests.wire.process import client as stock_client

AUDIENCE = 20_000

# What the passing of thirty seconds does to a worker that is dead.
LAPSE = text("UPDATE messages SET lease_until = clock_timestamp() - interval '1 s' WHERE state = 'running'")
# Each chunk takes two seconds longer: time to kill its worker in the middle of one.
SLOW = (
    "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(2); RETURN NULL; END'",
    "CREATE TRIGGER slow AFTER INSERT ON deliveries FOR EACH STATEMENT EXECUTE FUNCTION slow()",
)


class App:
    """The app: it knows the API's address and its key, and nothing else."""

    def __init__(self, house: House, client: httpx.AsyncClient) -> None:
        self.house, self.client = house, client

    async def put(self, path: str, **body: Any) -> None:
        answer = await self.client.put(path, json=body) if body else await self.client.put(path)
        assert answer.status_code in {200, 204}, answer.text

    async def notify(self, type: str, **body: Any) -> dict[str, Any]:
        answer = await self.client.post("/v1/notifications", json={"type": type, **body})
        assert answer.status_code == 202, answer.text
        return await self.until(answer.json(), "completed")

    async def until(self, told: dict[str, Any], status: str, timeout: float = 60.0) -> dict[str, Any]:
        async def there() -> Any:
            answer = await self.client.get(f"/v1/notifications/{told['id']}")
            assert answer.status_code == 200, answer.text
            return answer.json() if answer.json()["status"] == status else None

        found: dict[str, Any] = await self.house.eventually(there, f"{told['id']} is {status}", timeout)
        return found

    async def feed(self, user: str) -> list[str]:
        """The titles of a user's feed, oldest first."""
        answer = await self.client.get(f"/v1/users/{user}/feed")
        assert answer.status_code == 200, answer.text
        return [item["data"]["title"] for item in reversed(answer.json()["items"])]


@pytest.fixture
async def app(tmp_path: Path, database: str, redis_url: str, mailbox: Mailbox) -> AsyncIterator[App]:
    where = {
        "SMTP_HOST": mailbox.host,
        "SMTP_PORT": str(mailbox.port),
        "CELERY_RESULT_BACKEND": redis_url.replace("/0", "/2"),
    }
    async with house(tmp_path, database, redis_url, **where) as home:
        key = await home.key("prompts")
        await home.start_api()
        await home.start_worker()
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=home.url, headers=headers, timeout=60) as client:
            yield App(home, client)


async def test_publish_comment_update_each_is_told_once(app: App, mailbox: Mailbox, redis_url: str) -> None:
    for user in ("ada", "bob", "cem"):
        await app.put(f"/v1/users/{user}", email=f"{user}@prompts.example")
    for topic, user in (("writing", "ada"), ("teaching", "ada"), ("teaching", "bob"), ("writing", "cem")):
        await app.put(f"/v1/topics/{topic}/followers/{user}")
    await app.put("/v1/users/bob/preferences", categories={"comments": {"email": "off"}})
    both = ["inbox", "email"]
    published = await app.notify(
        "prompt.published",
        recipients={"topics": ["writing", "teaching"]},
        exclude=["cem"],
        actor="cem",
        channels=both,
        data={"title": "Explain it simply", "body": "Cem shared a prompt."},
    )
    assert (published["counts"]["resolved"], published["counts"]["overlapping"]) == (3, 1)
    await app.put("/v1/topics/prompt-41/followers/ada")
    await app.put("/v1/topics/prompt-41/followers/bob")
    for kind in ("comment.created", "prompt.updated"):
        await app.notify(
            kind,
            recipients={"topics": ["prompt-41", "teaching"]},
            category="comments",
            channels=both,
            data={"title": kind},
            dedup_key=f"{kind}:1",
            dedup_window=600,
        )
    assert await app.feed("ada") == await app.feed("bob") == ["Explain it simply", "comment.created", "prompt.updated"]
    assert await app.feed("cem") == []
    await mailbox.wait(4, 60)
    sent = sorted((mail["To"], mail["Subject"]) for mail in mailbox.messages)
    assert sent == [
        ("ada@prompts.example", "Explain it simply"),
        ("ada@prompts.example", "comment.created"),
        ("ada@prompts.example", "prompt.updated"),
        ("bob@prompts.example", "Explain it simply"),
    ]
    await by_celery(app, stock_client(redis_url, backend=redis_url.replace("/0", "/2")), mailbox)
    await asyncio.to_thread(app.house.stop, "worker")
    app.house.environ["EMAIL_ENABLED"] = "false"
    await app.house.start_worker("quiet")
    quiet = await app.notify(
        "prompt.updated", recipients={"topics": ["writing", "teaching"]}, channels=both, data={"title": "Quietly"}
    )
    assert quiet["counts"]["channels"]["email"]["disabled"] == 3
    assert [(await app.feed(user))[-1] for user in ("ada", "bob", "cem")] == ["Quietly"] * 3
    assert len(mailbox.mails) == 8


async def by_celery(app: App, stock: Celery, mailbox: Mailbox) -> None:
    """The old code goes on sending tasks by name; it knows Celery and nothing of ours."""

    def call(name: str, *args: Any, **kwargs: Any) -> Any:
        return stock.send_task(name, args=args, kwargs=kwargs).get(timeout=60)

    one = await asyncio.to_thread(call, "notifications.send_notification", "ada", "One", "For Ada.")
    many = await asyncio.to_thread(call, "notifications.send_bulk_notifications", ["ada", "bob"], "Many")
    for answer in (one, many):
        await app.until({"id": answer["notification_id"]}, "completed")
    assert (await app.feed("ada"))[3:] == ["One", "Many"]
    assert (await app.feed("bob"))[3:] == ["Many"]
    mail = await asyncio.to_thread(call, "notifications.send_email", "dan@prompts.example", "Hi", "There.")
    assert mail["email_id"].startswith("em_")
    await mailbox.wait(8, 60)
    assert [mail["To"] for mail in mailbox.messages if mail["Subject"] == "Hi"] == ["dan@prompts.example"]
    swept = await asyncio.to_thread(call, "emails.process_queue")
    assert set(swept) == {"rung", "reclaimed", "expired"}


async def test_a_worker_killed_in_the_middle_of_an_audience_tells_nobody_twice_and_misses_nobody(
    app: App, engine: AsyncEngine
) -> None:
    for start in range(0, AUDIENCE, 10_000):
        ids = [f"u{number}" for number in range(start, start + 10_000)]
        answer = await app.client.post("/v1/topics/news/followers", json={"users": ids}, timeout=60)
        assert answer.json()["changed"] == 10_000
    async with engine.begin() as connection:
        for statement in SLOW:
            await connection.execute(text(statement))
    answer = await app.client.post(
        "/v1/notifications", json={"type": "news.told", "recipients": {"topics": ["news"]}, "data": {"title": "News"}}
    )
    told = answer.json()

    async def halfway() -> Any:
        found = (await app.client.get(f"/v1/notifications/{told['id']}")).json()
        return found if found["counts"]["resolved"] else None

    found = await app.house.eventually(halfway, "the first chunk is done", 60)
    app.house.kill("worker")
    assert (found["status"], found["counts"]["resolved"]) == ("processing", 10_000)
    async with engine.begin() as connection:
        await connection.execute(LAPSE)
        await connection.execute(text("DROP TRIGGER slow ON deliveries"))
    await app.house.start_worker("heir")
    done = await app.until(told, "completed")
    assert done["counts"]["resolved"] == done["counts"]["channels"]["inbox"]["delivered"] == AUDIENCE
    assert done["progress"] == {"done": AUDIENCE, "total": AUDIENCE}
    async with engine.connect() as connection:
        rows = "SELECT count(*) AS all, count(DISTINCT user_no) AS people FROM deliveries"
        assert tuple((await connection.execute(text(rows))).one()) == (AUDIENCE, AUDIENCE)
