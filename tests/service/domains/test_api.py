"""A tenant's domain is theirs once its DNS says so; from then on its mail is signed, and nobody else's is."""

import re
from collections.abc import AsyncIterator
from typing import Any

import dkim
import httpx
import pytest

from service.settings import Settings
from tests.faults.sink import Sink
from tests.service.conftest import MakeKey, client_of
from tests.service.emails.posting import HELLO, execute_sql, look, post, work
from tests.service.nameserver import NameServer


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with Sink() as made:
        yield made


@pytest.fixture
async def names() -> AsyncIterator[NameServer]:
    async with NameServer() as made:
        yield made


@pytest.fixture
def settings(database: str, redis_url: str, sink: Sink, names: NameServer) -> Settings:
    return Settings.from_env(
        {
            "DATABASE_URL": database,
            "REDIS_URL": redis_url,
            "SECRET_KEY": "a secret of tests only",
            "SMTP_HOST": sink.host,
            "SMTP_PORT": str(sink.port),
            "MAIL_FROM": "Callboard <mail@callboard.example>",
            "DNS_SERVERS": f"127.0.0.1:{names.port}",
        }
    )


async def add(api: httpx.AsyncClient, domain: str = "academy.example") -> dict[str, Any]:
    answer = await api.post("/v1/senders", json={"domain": domain})
    assert answer.status_code == 201, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def verify(api: httpx.AsyncClient, sender: dict[str, Any]) -> dict[str, Any]:
    answer = await api.post(f"/v1/senders/{sender['id']}/verify")
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def publish(names: NameServer, sender: dict[str, Any]) -> None:
    names.texts.update({record["name"]: [record["value"]] for record in sender["records"]})


def believed(names: NameServer, data: bytes) -> bool:
    """What a receiver says of a mail, who asks the same name server."""
    found: bool = dkim.verify(
        data, dnsfunc=lambda name, timeout=5: "".join(names.texts[name.decode().rstrip(".")]).encode()
    )
    return found


async def test_a_domain_is_verified_by_its_records_and_its_mail_is_signed(
    api: httpx.AsyncClient, sink: Sink, names: NameServer
) -> None:
    sender = await add(api, "Academy.example")
    assert (sender["domain"], sender["verified"]) == ("academy.example", False)
    first = await verify(api, sender)
    assert not first["verified"]
    assert [record["problem"] for record in first["records"]] == ["there is no TXT record of this name"] * 2
    refused = await api.post("/v1/emails", json={**HELLO, "from": "Ada <ada@academy.example>"})
    assert (refused.status_code, refused.json()["code"]) == (403, "sender-not-allowed")
    publish(names, sender)
    second = await verify(api, sender)
    assert second["verified"]
    assert all(record["found"] for record in second["records"])
    mail = await post(api, **{"from": "Academy <ada@Academy.example>"})
    await work(mail)
    assert (await look(api, mail))["status"] == "sent"
    assert believed(names, sink.mails[0].data)
    assert not believed(names, sink.mails[0].data.replace(b"Good morning", b"Good evening"))
    await work(await post(api))
    assert b"DKIM-Signature" not in sink.mails[1].data, "the house's own mail is the relay's to sign"


async def test_a_domain_whose_records_are_gone_or_wrong_is_not_verified_any_more(
    api: httpx.AsyncClient, names: NameServer
) -> None:
    sender = await add(api)
    publish(names, sender)
    assert (await verify(api, sender))["verified"]
    names.texts[sender["records"][1]["name"]] = ["v=DKIM1; k=rsa; p=AAAA"]
    looked = await verify(api, sender)
    assert not looked["verified"]
    assert [record["found"] for record in looked["records"]] == [True, False]
    assert "another text" in looked["records"][1]["problem"]


async def test_a_name_server_that_is_silent_is_said(settings: Settings, make_key: MakeKey) -> None:
    import dataclasses

    deaf = dataclasses.replace(settings, dns_servers=("127.0.0.1:1",))
    async with client_of(deaf) as api:
        api.headers["Authorization"] = f"Bearer {await make_key()}"
        looked = await verify(api, await add(api))
        assert "do not answer" in looked["records"][0]["problem"]


async def test_where_domains_must_be_verified_no_other_is_taken(
    settings: Settings, make_key: MakeKey, names: NameServer
) -> None:
    import dataclasses

    strict = dataclasses.replace(settings, mail_verified=True, mail_domains=("*",))
    async with client_of(strict) as api:
        api.headers["Authorization"] = f"Bearer {await make_key()}"
        for address in ("ada@academy.example", "mail@callboard.example"):
            refused = await api.post("/v1/emails", json={**HELLO, "from": address})
            assert (refused.status_code, refused.json()["code"]) == (403, "sender-not-verified")
        assert (await api.post("/v1/emails", json=HELLO)).status_code == 202, "the house's own sender"
        sender = await add(api)
        publish(names, sender)
        await verify(api, sender)
        assert (await api.post("/v1/emails", json={**HELLO, "from": "ada@academy.example"})).status_code == 202
        assert (await api.delete(f"/v1/senders/{sender['id']}")).status_code == 204
        assert (await api.post("/v1/emails", json={**HELLO, "from": "ada@academy.example"})).status_code == 403


async def test_another_tenants_domain_is_not_theirs(
    api: httpx.AsyncClient, make_key: MakeKey, names: NameServer, sink: Sink
) -> None:
    sender = await add(api)
    publish(names, sender)
    await verify(api, sender)
    other = {"Authorization": f"Bearer {await make_key(tenant='another')}"}
    assert (await api.get("/v1/senders", headers=other)).json() == {"items": []}
    assert (await api.get(f"/v1/senders/{sender['id']}", headers=other)).status_code == 404
    assert (await api.post(f"/v1/senders/{sender['id']}/verify", headers=other)).status_code == 404
    answer = await api.post("/v1/emails", json={**HELLO, "from": "x@academy.example"}, headers=other)
    assert answer.status_code == 403
    theirs = (await api.post("/v1/senders", json={"domain": "academy.example"}, headers=other)).json()
    assert not (await verify_as(api, theirs, other))["verified"], "the records are the first tenant's"


async def verify_as(api: httpx.AsyncClient, sender: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = (await api.post(f"/v1/senders/{sender['id']}/verify", headers=headers)).json()
    return found


async def test_the_private_key_is_stored_sealed_and_never_told(api: httpx.AsyncClient) -> None:
    sender = await add(api)
    (row,) = await execute_sql("SELECT private_key, public_key FROM senders")
    assert b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01" not in bytes(row["private_key"]), "the OID of an RSA key"
    assert row["public_key"] in sender["records"][1]["value"]
    assert not re.search("private", (await api.get(f"/v1/senders/{sender['id']}")).text)


async def test_what_is_no_domain_and_what_is_there_already_is_refused(api: httpx.AsyncClient) -> None:
    for domain in ("", "academy", "a b.example", "x@academy.example", "127.0.0.1", "a." * 200 + "example"):
        answer = await api.post("/v1/senders", json={"domain": domain})
        assert answer.status_code == 422, domain
        assert answer.json()["errors"][0]["pointer"] == "/domain"
    await add(api)
    again = await api.post("/v1/senders", json={"domain": "academy.example"}, headers={"Idempotency-Key": "x"})
    assert (again.status_code, again.json()["code"]) == (409, "sender-exists")
    assert (await api.get("/v1/senders/sd_x")).status_code == 404
