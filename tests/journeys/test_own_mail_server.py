"""A tenant brings its own domain and its own mail server: set up wrongly, told how, mended, and nobody else notices."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import dkim
import httpx
import pytest

from tests.faults.sink import Sink
from tests.journeys.house import House, house
from tests.service.nameserver import NameServer

PASSWORD = "the harbour opens at six"
TYPO = "the harbour opens at sixx"


class App:
    """An app of one tenant: it knows the API's address and its key, and nothing else."""

    def __init__(self, home: House, client: httpx.AsyncClient) -> None:
        self.home, self.client = home, client

    async def ask(self, method: str, path: str, status: int, body: Any = None) -> Any:
        answer = await self.client.request(method, path, json=body)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    async def send(self, subject: str, **sender: str) -> dict[str, Any]:
        body = {"to": "ada@example.org", "subject": subject, "text": "See you on Thursday.", **sender}
        told: dict[str, Any] = await self.ask("POST", "/v1/emails", 202, body)
        return told

    async def until(self, mail: dict[str, Any], what: str) -> dict[str, Any]:
        """Polls a mail until it has this status, or this error."""

        async def there() -> Any:
            found = await self.ask("GET", f"/v1/emails/{mail['id']}", 200)
            return found if what in (found["status"], (found["error"] or {}).get("code")) else None

        found: dict[str, Any] = await self.home.eventually(there, f"{mail['id']} is {what}", 60)
        return found


@pytest.fixture
async def names() -> AsyncIterator[NameServer]:
    """The name server in which the tenant publishes its records."""
    async with NameServer() as made:
        yield made


@pytest.fixture
async def shared() -> AsyncIterator[Sink]:
    """The house's mail server, for whoever has none."""
    async with Sink() as made:
        yield made


@pytest.fixture
async def own() -> AsyncIterator[Sink]:
    """The tenant's mail server, which lets in only who knows the password."""
    async with Sink(users={"academy": PASSWORD}) as made:
        yield made


@pytest.fixture
async def home(tmp_path: Path, database: str, redis_url: str, shared: Sink, names: NameServer) -> AsyncIterator[House]:
    mail = {"SMTP_HOST": shared.host, "SMTP_PORT": str(shared.port), "MAIL_FROM": "House <mail@house.example>"}
    names_of = {"DNS_SERVERS": f"127.0.0.1:{names.port}", "OUTBOUND_PRIVATE": "true", "MAIL_VERIFIED": "true"}
    async with house(tmp_path, database, redis_url, **mail, **names_of) as made:
        await made.start_api()
        await made.start_worker()
        yield made


def app(home: House, key: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=home.url, headers={"Authorization": f"Bearer {key}"}, timeout=30)


async def test_a_tenant_brings_its_domain_and_its_server_gets_the_password_wrong_and_mends_it(
    home: House, shared: Sink, own: Sink, names: NameServer
) -> None:
    async with app(home, await home.key("academy")) as one, app(home, await home.key("bakery")) as two:
        academy, bakery = App(home, one), App(home, two)

        # its domain: refused until DNS says that it is its own
        refused = {"from": "hello@academy.example", "to": "ada@example.org", "subject": "Too early", "text": "x"}
        assert (await academy.ask("POST", "/v1/emails", 403, refused))["code"] == "sender-not-verified"
        sender = await academy.ask("POST", "/v1/senders", 201, {"domain": "academy.example"})
        assert not (await academy.ask("POST", f"/v1/senders/{sender['id']}/verify", 200))["verified"]
        names.texts.update({record["name"]: [record["value"]] for record in sender["records"]})
        assert (await academy.ask("POST", f"/v1/senders/{sender['id']}/verify", 200))["verified"]

        # its server, with a typo in the password: the probe says which step fails, and how to mend it
        server = {"host": own.host, "port": own.port, "tls": "none", "username": "academy"}
        wrong = await academy.ask("POST", "/v1/transports", 201, {"name": "first", "password": TYPO, **server})
        probed = await academy.ask("POST", f"/v1/transports/{wrong['id']}/probe", 200)
        assert (probed["ok"], probed["steps"][-1]["name"]) == (False, "auth")
        assert "Check username and password" in probed["steps"][-1]["mend"]

        # a mail that is sent nevertheless waits, says why, and is not lost; others' mail is none of its business
        mail = await academy.send("Tides begins", **{"from": "Academy <hello@academy.example>"})
        waits = await academy.until(mail, "auth_failed")
        assert (waits["status"], waits["error"]["retryable"]) == ("queued", True)
        other = await bakery.send("Bread is ready")
        await bakery.until(other, "sent")
        assert [message.sender for message in shared.mails] == ["mail@house.example"]

        # mended: another server in place of the first, and the mail goes now
        right = await academy.ask("POST", "/v1/transports", 201, {"name": "second", "password": PASSWORD, **server})
        assert (await academy.ask("POST", f"/v1/transports/{right['id']}/probe", 200))["ok"]
        await academy.ask("DELETE", f"/v1/transports/{wrong['id']}", 204)
        await academy.ask("PATCH", f"/v1/emails/{mail['id']}", 200, {"scheduled_at": None})
        await academy.until(mail, "sent")

        # by its own server, let in as itself, in its own name, signed with its key
        [message] = own.mails
        assert message.sender == "hello@academy.example"
        assert [session.user for session in own.sessions if session.user] == ["academy"] * 2, (
            "the probe's and the mail's"
        )
        assert dkim.verify(message.data, dnsfunc=lambda name, timeout=5: record_of(names, name))
        assert not dkim.verify(
            message.data.replace(b"Thursday", b"Friday"), dnsfunc=lambda name, timeout=5: record_of(names, name)
        )

        # nobody else's mail comes by it, nobody else sees it, and the password is nowhere to be read
        await bakery.until(await bakery.send("More bread"), "sent")
        assert (len(own.mails), len(shared.mails)) == (1, 2)
        assert (await bakery.ask("GET", "/v1/transports", 200))["items"] == []
        await bakery.ask("POST", f"/v1/transports/{right['id']}/probe", 404)
        listed = await academy.ask("GET", "/v1/transports", 200)
        said = [str(listed), *(home.log(name) for name in home.processes)]
        assert not [text for text in said if PASSWORD in text or TYPO in text]


def record_of(names: NameServer, name: bytes) -> bytes:
    """The TXT record that a receiver of the mail finds."""
    return "".join(names.texts[name.decode().rstrip(".")]).encode()
