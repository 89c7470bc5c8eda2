"""A new version under load: workers and then API processes are replaced one by one, and nobody notices."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from tests.journeys.house import House, free_port, house


class Load:
    """Posts mails for as long as it is let, through whichever of two ports takes the connection, as a balancer does."""

    def __init__(self, ports: list[int], key: str) -> None:
        self.ports = ports
        self.accepted: list[str] = []
        self.wrong: list[str] = []
        self.running = True
        limits = httpx.Limits(max_keepalive_connections=0)
        self.client = httpx.AsyncClient(headers={"Authorization": f"Bearer {key}"}, limits=limits, timeout=60)

    async def post_forever(self) -> None:
        number = 0
        while self.running:
            number += 1
            answer = await self.post(number)
            if answer is not None:
                self.accepted.append(answer)
            await asyncio.sleep(0.02)

    async def post(self, number: int) -> str | None:
        mail = {"to": f"reader{number}@example.org", "subject": "Hello", "text": "Hi"}
        for port in (self.ports * 2)[number % 2 : number % 2 + 2]:
            try:
                answer = await self.client.post(f"http://127.0.0.1:{port}/v1/emails", json=mail)
            except httpx.ConnectError:
                continue  # nobody listens there: nothing was sent yet
            except httpx.HTTPError as error:
                self.wrong.append(repr(error))
                return None
            if answer.status_code == 202:
                return str(answer.json()["message_id"])
            self.wrong.append(answer.text)
            return None
        self.wrong.append("neither takes connections")
        return None

    async def have_more(self, home: House, count: int) -> None:
        """Waits until so many more were accepted: the load goes on meanwhile."""
        wanted = len(self.accepted) + count

        async def there() -> bool:
            return len(self.accepted) >= wanted or bool(self.wrong)

        await home.eventually(there, f"{count} more mails are accepted", timeout=60)


async def start_api(home: House, name: str, port: int) -> None:
    home.environ["API_PORT"] = str(port)
    home.start(name, "service", "api")

    async def ready() -> bool:
        try:
            async with httpx.AsyncClient() as client:
                return (await client.get(f"http://127.0.0.1:{port}/health/ready", timeout=5)).status_code == 200
        except httpx.HTTPError:
            return False

    await home.eventually(ready, f"{name} is ready", timeout=60)


async def test_a_deploy_under_load_fails_no_request_and_loses_or_repeats_no_mail(
    tmp_path: Path, database: str, redis_url: str, mailbox: Any
) -> None:
    ports = [free_port(), free_port()]
    smtp = {"SMTP_HOST": mailbox.host, "SMTP_PORT": str(mailbox.port), "WORKER_LEASE": "5"}
    async with house(tmp_path, database, redis_url, **smtp) as home:
        load = Load(ports, await home.key())
        for name, port in zip(("left", "right"), ports, strict=True):
            await start_api(home, name, port)
        await home.start_worker("old")
        posting = asyncio.create_task(load.post_forever())
        await load.have_more(home, 20)
        await home.start_worker("new")  # before the API: a worker must know all that an API writes
        assert await asyncio.to_thread(home.stop, "old") == 0
        for name, port in zip(("left", "right"), ports, strict=True):
            assert await asyncio.to_thread(home.stop, name) == 0
            await load.have_more(home, 10)
            await start_api(home, name, port)
        await load.have_more(home, 20)
        load.running = False
        await posting
        await load.client.aclose()
        assert not load.wrong
        await home.eventually(lambda: all_sent(database), "every mail is sent", timeout=60)
        assert await asyncio.to_thread(home.stop, "new") == 0
    arrived = Counter(str(mail["Message-ID"]) for mail in mailbox.messages)
    assert arrived == Counter(load.accepted)


async def all_sent(database: str) -> bool:
    connection = await asyncpg.connect(database)
    try:
        return not await connection.fetchval("SELECT count(*) FROM emails WHERE status <> 'sent'")
    finally:
        await connection.close()
