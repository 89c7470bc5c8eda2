"""A learning platform's newsletter: signed by its own key, ended by one click, by a bounce and by a complaint."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import dkim
import httpx
import pytest

from tests.faults.sink import Mail, Sink
from tests.journeys.house import House, free_port, house
from tests.service.emails.reports.samples import arf, dsn
from tests.service.nameserver import NameServer

LINK = re.compile(rb"^List-Unsubscribe: <(http://[^>]+/u/[^>]+)>\r\n", re.MULTILINE)
ENVID = re.compile(r"ENVID=(\w+)")
OFFERS = ("PIPELINING", "SIZE 40000000", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN")


class Academy:
    """The app, its mail server's eyes, and its readers."""

    def __init__(self, home: House, client: httpx.AsyncClient, relay: Sink) -> None:
        self.house, self.client, self.relay = home, client, relay

    async def send(self, to: str, **more: Any) -> dict[str, Any]:
        body = {"from": "Academy <news@academy.example>", "to": to, "subject": "This week", "text": "Tides.\n", **more}
        answer = await self.client.post("/v1/emails", json=body)
        assert answer.status_code == 202, answer.text
        told: dict[str, Any] = answer.json()
        return told

    async def newsletter(self, to: str) -> dict[str, Any]:
        return await self.send(to, lane="bulk", category="newsletter")

    async def until(self, mail: dict[str, Any], status: str) -> dict[str, Any]:
        async def there() -> Any:
            found = (await self.client.get(f"/v1/emails/{mail['id']}")).json()
            return found if found["status"] == status else None

        found: dict[str, Any] = await self.house.eventually(there, f"{mail['id']} is {status}", 60)
        return found

    async def report(self, raw: bytes) -> dict[str, Any]:
        headers = {"Content-Type": "message/rfc822"}
        answer = await self.client.post("/v1/inbound/bounces", content=raw, headers=headers)
        assert answer.status_code == 200, answer.text
        (told,) = answer.json()["items"]
        found: dict[str, Any] = told
        return found

    def arrived(self, mail: dict[str, Any]) -> Mail:
        (found,) = [each for each in self.relay.mails if each.message_id == mail["message_id"]]
        return found


@pytest.fixture
async def names() -> AsyncIterator[NameServer]:
    async with NameServer() as made:
        yield made


@pytest.fixture
async def academy(tmp_path: Path, database: str, redis_url: str, names: NameServer) -> AsyncIterator[Academy]:
    port = free_port()
    async with Sink(extensions=OFFERS) as relay:
        where = {
            "SMTP_HOST": relay.host,
            "SMTP_PORT": str(relay.port),
            "DNS_SERVERS": f"127.0.0.1:{names.port}",
            "MAIL_VERIFIED": "true",
            "MAIL_FROM": "House <hello@house.example>",
            "MAIL_RETURN_PATH": "bounces@house.example",
        }
        async with house(tmp_path, database, redis_url, **where) as home:
            home.port = port
            home.environ |= {"API_PORT": str(port), "PUBLIC_URL": home.url}
            key = await home.key()
            await home.start_api()
            await home.start_worker()
            headers = {"Authorization": f"Bearer {key}"}
            async with httpx.AsyncClient(base_url=home.url, headers=headers, timeout=60) as client:
                yield Academy(home, client, relay)


@pytest.mark.timeout(240)
async def test_readers_say_no_in_every_way_there_is(academy: Academy, names: NameServer) -> None:
    await _its_domain_is_verified(academy, names)

    first = await academy.newsletter("ada@example.org")
    await academy.until(first, "sent")
    arrived = academy.arrived(first)
    assert _believed(names, arrived.data)
    assert re.fullmatch(r"bounces\+[a-z2-7]{40}@house\.example", arrived.sender)

    link = LINK.search(arrived.data.replace(b"\r\n ", b" "))
    assert link
    async with httpx.AsyncClient(timeout=60) as reader:
        shown = await reader.get(link[1].decode(), headers={"Accept": "text/html"})
        assert "Unsubscribe from these emails?" in shown.text
        done = await reader.post(link[1].decode(), content="List-Unsubscribe=One-Click")
        assert (done.status_code, "You are unsubscribed" in done.text) == (200, True)
    await academy.until(await academy.newsletter("Ada@example.org"), "suppressed")
    reset = await academy.send("ada@example.org", lane="critical", subject="Your password")
    await academy.until(reset, "sent")
    assert b"List-Unsubscribe" not in academy.arrived(reset).data

    lost = await academy.newsletter("bob@example.org")
    await academy.until(lost, "sent")
    said = "\n".join(line for session in academy.relay.sessions for line in session.lines)
    tag = academy.arrived(lost).sender.partition("+")[2].partition("@")[0]
    assert tag in ENVID.findall(said)
    told = await academy.report(dsn(recipient="bob@example.org", envelope=tag))
    assert (told["email_id"], told["suppressed"]) == (lost["id"], True)
    await academy.until(lost, "bounced")
    await academy.until(await academy.send("bob@example.org", lane="critical"), "suppressed")

    unwanted = await academy.newsletter("grace@example.org")
    await academy.until(unwanted, "sent")
    assert (await academy.report(arf("", sender=academy.arrived(unwanted).sender)))["recipient"] == "grace@example.org"
    await academy.until(unwanted, "complained")
    await academy.until(await academy.newsletter("grace@example.org"), "suppressed")

    items = (await academy.client.get("/v1/suppressions")).json()["items"]
    assert {(item["address"], item["category"], item["reason"]) for item in items} == {
        ("ada@example.org", "newsletter", "unsubscribe"),
        ("bob@example.org", None, "hard_bounce"),
        ("grace@example.org", None, "complaint"),
    }
    story = (await academy.client.get(f"/v1/requests/{lost['request_id']}")).json()
    assert "email_bounced" in str(story)


async def _its_domain_is_verified(academy: Academy, names: NameServer) -> None:
    body = {"from": "news@academy.example", "to": "ada@example.org", "subject": "x", "text": "x"}
    refused = await academy.client.post("/v1/emails", json=body)
    assert (refused.status_code, refused.json()["code"]) == (403, "sender-not-verified")
    sender = (await academy.client.post("/v1/senders", json={"domain": "academy.example"})).json()
    names.texts = {record["name"]: [record["value"]] for record in sender["records"]}
    verified = (await academy.client.post(f"/v1/senders/{sender['id']}/verify")).json()
    assert verified["verified"], verified


def _believed(names: NameServer, data: bytes) -> bool:
    """What a receiver says of the bytes that arrived, who looks the key up."""
    found: bool = dkim.verify(
        data, dnsfunc=lambda name, timeout=5: "".join(names.texts[name.decode().rstrip(".")]).encode()
    )
    return found
