"""Two tenants on one worker: a flood of the one delays the other by its share, counted in emails, not in seconds."""

import asyncio
from base64 import b64encode
from pathlib import Path
from typing import Any

import httpx

from tests.faults.sink import Rule, Sink
from tests.journeys.house import House, house

CONNECTIONS = 4
SLOTS = 100
FLOOD = 160
SLOW = {"dot": [Rule(delay=0.4, accept=True)]}
MIB = 1024 * 1024
MEMORY = 64 * MIB
CONSTANT = 128 * MIB
"""What a worker may take beside EMAIL_MEMORY: its light emails, the database's buffers, what the allocator keeps."""
LARGE = 16
PDF = {"filename": "a.pdf", "content_type": "application/pdf", "content": b64encode(bytes(6 * MIB)).decode()}


async def client_of(home: House, tenant: str) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {await home.key(tenant)}"}
    return httpx.AsyncClient(base_url=home.url, headers=headers, timeout=60)


async def post(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    body = {"to": "ada@example.org", "subject": "Hello", "text": "Good morning.", **fields}
    answer = await client.post("/v1/emails", json=body)
    assert answer.status_code == 202, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def flood(client: httpx.AsyncClient, lane: str, count: int = FLOOD) -> None:
    await asyncio.gather(*(post(client, to=f"a{n}@example.org", lane=lane) for n in range(count)))


async def overtaken_by(home: House, sink: Sink, client: httpx.AsyncClient, lane: str) -> int:
    """How many emails the server takes between the acceptance of one of ours and its delivery."""
    told = await post(client, lane=lane)
    accepted = len(sink.mails)

    async def there() -> bool:
        return told["message_id"] in sink.received()

    await home.eventually(there, f"a {lane} email arrives", timeout=90)
    return [mail.message_id for mail in sink.mails].index(told["message_id"]) - accepted


async def test_another_tenants_flood_delays_an_email_by_its_share(
    tmp_path: Path, database: str, redis_url: str
) -> None:
    async with Sink(SLOW) as sink:
        mail = {"SMTP_HOST": sink.host, "SMTP_PORT": str(sink.port), "SMTP_POOL_SIZE": str(CONNECTIONS)}
        async with house(tmp_path, database, redis_url, WORKER_CONCURRENCY=str(SLOTS), **mail) as home:
            await home.start_api()
            async with await client_of(home, "a") as a, await client_of(home, "b") as b:
                await flood(a, "default", FLOOD)
                await flood(a, "bulk", FLOOD)
                await home.start_worker()

                async def flowing() -> bool:
                    return len(sink.mails) >= 2 * CONNECTIONS

                await home.eventually(flowing, "the flood goes out")
                places = {lane: await overtaken_by(home, sink, b, lane) for lane in ("critical", "default", "critical")}
                assert len(sink.mails) < FLOOD, "the flood was over too early"
    print(places)
    assert max(places.values()) <= 2 * CONNECTIONS


async def test_a_server_that_never_answers_holds_no_slot_of_another_tenant(
    tmp_path: Path, database: str, redis_url: str
) -> None:
    async with (
        Sink() as sink,
        Sink({"banner": [Rule(then="hang")]}) as dead,
        Sink({"banner": [Rule(then="hang")]}) as two,
    ):
        mail = {"SMTP_HOST": sink.host, "SMTP_PORT": str(sink.port), "OUTBOUND_PRIVATE": "true"}
        mail |= {"MAIL_DOMAINS": "academy.example,other.example"}
        async with house(tmp_path, database, redis_url, WORKER_CONCURRENCY=str(SLOTS), **mail) as home:
            await home.start_api()
            async with await client_of(home, "a") as a, await client_of(home, "b") as b:
                for server, domains in ((dead, []), (two, ["other.example"])):
                    body = {
                        "name": f"own{server.port}",
                        "host": server.host,
                        "port": server.port,
                        "tls": "none",
                        "domains": domains,
                    }
                    assert (await a.post("/v1/transports", json=body)).status_code == 201
                senders = ("hello@academy.example", "hello@other.example")
                await asyncio.gather(*(post(a, **{"from": senders[n % 2]}) for n in range(FLOOD)))
                await home.start_worker()

                async def stuck() -> bool:
                    return dead.open > 0 and two.open > 0

                await home.eventually(stuck, "the flood meets its servers")
                await asyncio.gather(*(overtaken_by(home, sink, b, "default") for _ in range(10)))
                states = (await a.get("/v1/emails?status=sent")).json()["items"]
    assert (len(sink.mails), dead.mails, two.mails, states) == (10, [], [], [])


def memory(pid: int, name: str) -> int:
    """Bytes: `VmRSS`, or `VmHWM` for the most so far."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


async def test_a_backlog_of_large_emails_takes_no_more_memory_than_it_may_and_small_ones_overtake(
    tmp_path: Path, database: str, redis_url: str
) -> None:
    async with Sink() as sink:
        mail = {"SMTP_HOST": sink.host, "SMTP_PORT": str(sink.port), "SMTP_POOL_SIZE": str(CONNECTIONS)}
        async with house(tmp_path, database, redis_url, EMAIL_MEMORY=str(MEMORY), **mail) as home:
            await home.start_api()
            async with await client_of(home, "a") as a, await client_of(home, "b") as b:
                for _ in range(LARGE):
                    await post(a, attachments=[PDF])
                await home.start_worker()
                pid = home.processes["worker"].pid
                before = memory(pid, "VmRSS")
                place = await overtaken_by(home, sink, b, "default")

                async def all_there() -> bool:
                    return len(sink.mails) == LARGE + 1

                await home.eventually(all_there, "all arrive", timeout=120)
                grown = memory(pid, "VmHWM") - before
    print(f"grown by {grown / MIB:.0f} MiB; {place} large ones came first")
    assert place <= 2 * CONNECTIONS
    assert grown <= MEMORY + CONSTANT
