"""A learning platform moves its mail here: six letters, one place for all of it, directly or through the queue."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from callboard_workers.testing import workbench
from service.emails import builtin_emails, in_process
from service.settings import Settings
from tests.faults.sink import Rule, Sink
from tests.journeys.house import ROOT, House, free_port, house

LETTERS: dict[str, dict[str, str]] = {
    "welcome": {"name": "Ada", "action_url": "https://academy.example/start"},
    "password_reset": {"action_url": "https://academy.example/reset/8f3a", "expires_in": "one hour"},
    "email_verification": {"action_url": "https://academy.example/confirm/51c0", "code": "481 920"},
    "course_enrollment": {"name": "Ada", "course_name": "Tides", "course_url": "https://academy.example/tides"},
    "certificate": {"name": "Ada", "course_name": "Tides", "certificate_url": "https://academy.example/c/1"},
    "custom": {"subject": "We meet on Thursday", "message": "The harbour is closed.\n\nSame place, same time."},
}


# What the passing of thirty seconds does to a worker that is dead.
LAPSE = text("UPDATE messages SET lease_until = clock_timestamp() - interval '1 s' WHERE state = 'running'")


class Platform:
    """The app: it knows the API's address and its key, and nothing else."""

    def __init__(self, house: House, client: httpx.AsyncClient) -> None:
        self.house, self.client = house, client

    async def send(self, template: str, **more: Any) -> dict[str, Any]:
        key = more.pop("key", None)
        body = {"to": "Ada <ada@example.org>", "template": {"key": template, "variables": LETTERS[template]}, **more}
        answer = await self.client.post("/v1/emails", json=body, headers={"Idempotency-Key": key} if key else None)
        assert answer.status_code == 202, answer.text
        told: dict[str, Any] = answer.json()
        return told

    async def read(self, path: str) -> Any:
        answer = await self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def until(self, mail: dict[str, Any], status: str, timeout: float = 60.0) -> dict[str, Any]:
        """Polls a mail until it has this status, as the app would."""

        async def there() -> Any:
            found = await self.read(f"/v1/emails/{mail['id']}")
            return found if found["status"] == status else None

        found: dict[str, Any] = await self.house.eventually(there, f"{mail['id']} is {status}", timeout)
        return found


@pytest.fixture
async def platform(tmp_path: Path, database: str, redis_url: str, mailbox: Any) -> AsyncIterator[Platform]:
    mail = {"SMTP_HOST": mailbox.host, "SMTP_PORT": str(mailbox.port)}
    async with house(tmp_path, database, redis_url, **mail) as home:
        key = await home.key()
        await home.start_api()
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=home.url, headers=headers, timeout=60) as client:
            yield Platform(home, client)


async def test_all_six_letters_arrive_and_each_task_tells_its_status(platform: Platform, mailbox: Any) -> None:
    await platform.house.start_worker()
    told = {template: await platform.send(template) for template in LETTERS}
    for mail in told.values():
        sent = await platform.until(mail, "sent")
        assert sent["attempts"] == 1
        task = await platform.read(f"/v1/tasks/{mail['task_id']}")
        assert (task["status"], task["name"]) == ("SUCCESS", "emails.send_email")
        accepted, delivered = (await platform.read(f"/v1/emails/{mail['id']}/events"))["items"]
        assert (accepted["event"], delivered["event"], delivered["detail"]["code"]) == ("accepted", "sent", 250)
    mails = {message["Message-ID"]: message for message in mailbox.messages}
    assert set(mails) == {mail["message_id"] for mail in told.values()}
    for template, mail in told.items():
        message = mails[mail["message_id"]]
        shown = await platform.read(f"/v1/emails/{mail['id']}/content")
        assert message["Subject"] == shown["subject"]
        for value in LETTERS[template].values():
            first = value.splitlines()[0]
            assert first in message["Subject"] or first in _body(message, "plain"), (template, first)
        assert "<html" in _body(message, "html")
    unknown = await platform.client.get("/v1/tasks/0199f6d6-c3a1-712f-a0d5-f1f0a9c1e7b2")
    assert unknown.status_code == 404


async def test_the_platform_accepts_mail_while_nobody_sends_and_a_late_worker_sends_it(
    platform: Platform, mailbox: Any
) -> None:
    """Queueing costs one database commit: with no worker and no mail server involved, every request is answered."""
    waiting = [await platform.send("welcome", to=f"user{n}@example.org") for n in range(20)]
    assert {(await platform.read(f"/v1/emails/{mail['id']}"))["status"] for mail in waiting} == {"queued"}
    assert mailbox.mails == []
    await platform.house.start_worker("early")
    await platform.house.start_worker("late")
    for mail in waiting:
        await platform.until(mail, "sent")
    assert len(mailbox.mails) == 20, "several workers share the queue and send each mail once"


async def test_asking_again_with_the_same_key_makes_one_mail(platform: Platform, mailbox: Any) -> None:
    first = await platform.send("certificate", key="certificate:ada:tides")
    again = await platform.send("certificate", key="certificate:ada:tides")
    assert again == first
    await platform.house.start_worker()
    await platform.until(first, "sent")
    assert await platform.send("certificate", key="certificate:ada:tides") == first
    assert len(mailbox.mails) == 1


async def test_the_mail_server_goes_away_and_comes_back(tmp_path: Path, database: str, redis_url: str) -> None:
    port = free_port()
    async with house(tmp_path, database, redis_url, SMTP_HOST="127.0.0.1", SMTP_PORT=str(port)) as home:
        key = await home.key()
        await home.start_api()
        await home.start_worker()
        async with httpx.AsyncClient(
            base_url=home.url, headers={"Authorization": f"Bearer {key}"}, timeout=60
        ) as client:
            platform = Platform(home, client)
            mail = await platform.send("password_reset")

            async def deferred() -> Any:
                events = (await platform.read(f"/v1/emails/{mail['id']}/events"))["items"]
                return [item for item in events if item["event"] == "deferred"]

            (first, *_) = await home.eventually(deferred, "an attempt is told")
            assert first["detail"]["phase"] == "connect"
            found = await platform.read(f"/v1/emails/{mail['id']}")
            assert found["status"] in {"queued", "sending"}
            assert found["error"]["retryable"]
            task = await platform.read(f"/v1/tasks/{mail['task_id']}")
            assert task["status"] in {"RETRY", "STARTED"}
            greylist = {"rcpt": [Rule("450 4.2.0 come back in a moment", times=1)]}
            async with _sink_on(port, greylist) as sink:
                sent = await platform.until(mail, "sent", timeout=60)
                assert sink.count(mail["message_id"]) == 1
                assert sent["attempts"] >= 2
                events = (await platform.read(f"/v1/emails/{mail['id']}/events"))["items"]
                assert events[-1]["event"] == "sent"
                assert any("come back in a moment" in json.dumps(item) for item in events)


async def test_a_worker_killed_with_mail_in_its_hands_loses_none_and_sends_none_twice(
    tmp_path: Path, database: str, redis_url: str, engine: AsyncEngine
) -> None:
    async with Sink({"data": [Rule(delay=60, times=5)]}) as sink:
        where = {"SMTP_HOST": sink.host, "SMTP_PORT": str(sink.port)}
        async with house(tmp_path, database, redis_url, **where) as home:
            key = await home.key()
            await home.start_api()
            await home.start_worker("doomed")
            async with httpx.AsyncClient(
                base_url=home.url, headers={"Authorization": f"Bearer {key}"}, timeout=60
            ) as client:
                platform = Platform(home, client)
                mails = [await platform.send("welcome") for _ in range(5)]
                await home.eventually(lambda: _all_at_data(sink, 5), "five mails are on the wire")
                home.kill("doomed")
                async with engine.begin() as connection:
                    await connection.execute(LAPSE)
                await home.start_worker("heir")
                for mail in mails:
                    await platform.until(mail, "sent", timeout=60)
                    assert sink.count(mail["message_id"]) == 1
                    events = (await platform.read(f"/v1/emails/{mail['id']}/events"))["items"]
                    assert [item["event"] for item in events] == ["accepted", "interrupted", "sent"]


async def test_code_in_the_same_process_sends_directly_or_queues_through_one_implementation(
    engine: AsyncEngine, mailbox: Any
) -> None:
    settings = Settings.from_env(
        {"SMTP_HOST": mailbox.host, "SMTP_PORT": str(mailbox.port), "MAIL_FROM": "Academy <hello@academy.example>"}
    )
    tenant = (await _tenant(engine)).tenant_id
    async with workbench(engine) as bench:
        bench.runtime.state["settings"] = settings
        letter = builtin_emails.certificate("ada@example.org", **LETTERS["certificate"])
        await in_process.send(letter)
        async with AsyncSession(engine) as session:
            await in_process.enqueue(session, letter, tenant_id=tenant)
            await session.commit()
        await bench.drain()
    direct, queued = mailbox.messages
    assert direct["Subject"] == queued["Subject"]
    assert _body(direct, "plain") == _body(queued, "plain")
    assert _body(direct, "html") == _body(queued, "html")


async def test_the_self_test_sends_one_mail_all_the_way(platform: Platform, mailbox: Any) -> None:
    command = [sys.executable, "-m", "service", "doctor", "--send-to", "ops@example.org", "--json"]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env={"PATH": "", **platform.house.environ}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said, _ = await asyncio.wait_for(process.communicate(), 180)
    assert process.returncode == 0, said.decode()
    assert [mail.recipients for mail in await mailbox.wait(1)] == [("ops@example.org",)]


async def _all_at_data(sink: Sink, count: int) -> bool:
    return sum("DATA" in session.verbs for session in sink.sessions) == count


async def _tenant(engine: AsyncEngine) -> Any:
    from service.access import keys
    from service.db import engine as db

    async with db.transaction(db.sessions(engine)) as session:
        row, _ = await keys.create(session, "academy", ["*"])
    return row


def _sink_on(port: int, rules: dict[str, list[Rule]]) -> Sink:
    sink = Sink(rules)
    sink.port = port
    return sink


def _body(message: EmailMessage, subtype: str) -> str:
    part = message.get_body((subtype,))
    assert part is not None
    text: str = part.get_content()
    return text
