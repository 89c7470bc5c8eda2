"""A password reset in the middle of a newsletter: the critical lane does not queue behind the bulk lane."""

import asyncio
from pathlib import Path
from typing import Any

import httpx

from tests.faults.sink import Rule, Sink
from tests.journeys.house import House, house

SLOTS = 4
NEWSLETTERS = 240
RESETS = 6
FROM_BELOW = 2
"""Newsletters that may go before a reset all the same: the lowest priority has a share of the fetches."""


async def post(client: httpx.AsyncClient, lane: str, number: int) -> str:
    """Hands in one mail; its Message-ID."""
    body = {"to": f"{lane}{number}@example.org", "subject": lane, "text": "…", "lane": lane}
    answer = await client.post("/v1/emails", json=body)
    assert answer.status_code == 202, answer.text
    told: str = answer.json()["message_id"]
    return told


async def until_sent(home: House, sink: Sink, wanted: set[str]) -> list[str]:
    """Waits for these mails; the Message-IDs of everything the server has by then, in its order."""

    async def there() -> Any:
        return wanted <= sink.received().keys()

    await home.eventually(there, f"{len(wanted)} mails arrive", timeout=60)
    return [mail.message_id for mail in sink.mails]


async def test_a_critical_mail_overtakes_the_bulk_that_waits(tmp_path: Path, database: str, redis_url: str) -> None:
    async with Sink({"dot": [Rule(delay=0.1, accept=True)]}) as sink:
        mail = {"SMTP_HOST": sink.host, "SMTP_PORT": str(sink.port), "WORKER_CONCURRENCY": str(SLOTS)}
        async with house(tmp_path, database, redis_url, **mail) as home:
            headers = {"Authorization": f"Bearer {await home.key()}"}
            await home.start_api()
            async with httpx.AsyncClient(base_url=home.url, headers=headers, timeout=60) as client:
                flood = set(await asyncio.gather(*(post(client, "bulk", n) for n in range(NEWSLETTERS))))
                await home.start_worker()

                async def flowing() -> Any:
                    return len(sink.mails) >= SLOTS

                await home.eventually(flowing, "the newsletter goes out")
                before = len(sink.mails)
                resets = set(await asyncio.gather(*(post(client, "critical", n) for n in range(RESETS))))
                accepted = len(sink.mails)
                order = await until_sent(home, sink, resets)
    last = max(order.index(reset) for reset in resets)
    overtaken = [mail for mail in order[accepted:last] if mail in flood]
    assert before < NEWSLETTERS / 2, "the flood was over before the resets came"
    assert len(overtaken) <= SLOTS + FROM_BELOW * RESETS, f"{len(overtaken)} newsletters went first"
