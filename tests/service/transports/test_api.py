"""A tenant's mail leaves by the tenant's own server, whose password nobody sees and whose troubles are its own."""

import asyncio
import dataclasses
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from service.settings import Settings
from tests.faults.sink import Rule, Sink
from tests.service.conftest import MakeKey, client_of
from tests.service.emails.posting import execute_sql, happened, look, post, work

PASSWORD = "a password that nobody is to see"


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    """The house's server."""
    async with Sink() as made:
        yield made


@pytest.fixture
async def own() -> AsyncIterator[Sink]:
    """The tenant's server."""
    async with Sink(users={"ada": PASSWORD}) as made:
        yield made


@pytest.fixture
def settings(database: str, redis_url: str, sink: Sink) -> Settings:
    return Settings.from_env(
        {
            "DATABASE_URL": database,
            "REDIS_URL": redis_url,
            "SECRET_KEY": "a secret of tests only",
            "SMTP_HOST": sink.host,
            "SMTP_PORT": str(sink.port),
            "MAIL_FROM": "Callboard <mail@callboard.example>",
            "MAIL_DOMAINS": "academy.example,other.example",
            "MAIL_RETURN_PATH": "bounces@callboard.example",
            "OUTBOUND_PRIVATE": "true",
        }
    )


async def add(api: httpx.AsyncClient, server: Sink, **fields: Any) -> dict[str, Any]:
    body = {"name": "own", "host": server.host, "port": server.port, "tls": "none", **fields}
    answer = await api.post("/v1/transports", json=body)
    assert answer.status_code == 201, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def test_mail_leaves_by_the_tenants_server_with_the_tenants_password(
    api: httpx.AsyncClient, sink: Sink, own: Sink, make_key: MakeKey, capsys: pytest.CaptureFixture[str]
) -> None:
    made = await add(api, own, username="ada", password=PASSWORD)
    mail = await post(api)
    await work(mail)
    assert (await look(api, mail))["status"] == "sent"
    assert (len(sink.mails), len(own.mails)) == (0, 1)
    assert own.sessions[0].user == "ada"
    other = await post(api, headers={"Authorization": f"Bearer {await make_key(tenant='another')}"})
    await work(other)
    assert (len(sink.mails), len(own.mails)) == (1, 1)
    assert own.mails[0].sender == "mail@callboard.example", "the tenant's server may know no other"
    assert re.fullmatch(r"bounces\+[a-z2-7]{40}@callboard\.example", sink.mails[0].sender)
    assert made["has_password"]
    everything = [
        made,
        (await api.get("/v1/transports")).json(),
        (await api.get(f"/v1/transports/{made['id']}")).json(),
    ]
    assert PASSWORD not in str(everything)
    (row,) = await execute_sql("SELECT password FROM transports")
    assert PASSWORD.encode() not in bytes(row["password"])
    said = capsys.readouterr()
    assert PASSWORD not in said.out + said.err


async def test_a_transport_takes_the_mail_of_its_domains_and_a_deleted_one_none(
    api: httpx.AsyncClient, sink: Sink, own: Sink
) -> None:
    async with Sink() as any_other:
        academy = await add(api, own, domains=["Academy.example"])
        await add(api, any_other, name="rest")
        for address in ("x@academy.example", "x@other.example", None):
            await work(await post(api, **({"from": address} if address else {})))
        assert (len(own.mails), len(any_other.mails), len(sink.mails)) == (1, 2, 0)
        assert (await api.delete(f"/v1/transports/{academy['id']}")).status_code == 204
        await work(await post(api, **{"from": "x@academy.example"}))
        assert (len(own.mails), len(any_other.mails)) == (1, 3)


async def test_mail_of_a_test_key_never_reaches_it(api: httpx.AsyncClient, own: Sink, make_key: MakeKey) -> None:
    await add(api, own)
    mail = await post(api, headers={"Authorization": f"Bearer {await make_key(mode='test')}"})
    await work(mail)
    assert own.sessions == []


async def test_the_probe_walks_the_way_and_says_how_to_mend_it(api: httpx.AsyncClient, own: Sink) -> None:
    good = await add(api, own, username="ada", password=PASSWORD)
    found = (await api.post(f"/v1/transports/{good['id']}/probe")).json()
    assert found["ok"]
    assert [step["name"] for step in found["steps"]] == ["dns", "connect", "banner", "ehlo", "auth", "mail"]
    bad = await add(api, own, name="bad", username="ada", password="wrong")
    found = (await api.post(f"/v1/transports/{bad['id']}/probe")).json()
    assert not found["ok"]
    last = found["steps"][-1]
    assert (last["name"], last["ok"]) == ("auth", False)
    assert "Check username and password" in last["mend"]
    assert own.mails == []


async def test_one_tenants_dead_server_does_not_hold_up_the_others(
    api: httpx.AsyncClient, sink: Sink, make_key: MakeKey
) -> None:
    async with Sink({"banner": [Rule(then="hang")]}) as dead:
        await add(api, dead, pool_size=2)
        stuck = [await post(api) for _ in range(60)]
        working = [asyncio.create_task(work(mail)) for mail in stuck]
        other = await post(api, headers={"Authorization": f"Bearer {await make_key(tenant='another')}"})
        await work(other)
        assert len(sink.mails) == 1
        waiting = [mail for mail in stuck if (await happened(api, mail))[-1]["event"] != "sending"]
        assert len(waiting) >= 60 - 2 - 50, "the slots that a single tenant's server can hold are bounded"
        assert dead.peak <= 2
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)


async def test_a_server_inside_our_network_is_refused_when_it_is_written_down_and_when_it_is_called(
    settings: Settings, make_key: MakeKey, own: Sink
) -> None:
    strict = dataclasses.replace(settings, outbound_private=False)
    async with client_of(strict) as api:
        api.headers["Authorization"] = f"Bearer {await make_key()}"
        for host in ("127.0.0.1", "localhost", "10.0.0.1", "169.254.169.254", "0x7f.1", "[::1]", "::1", "intra"):
            answer = await api.post("/v1/transports", json={"name": "x", "host": host})
            assert answer.status_code == 422, host
            assert "/host" in {fault["pointer"] for fault in answer.json()["errors"]}
        port = await api.post("/v1/transports", json={"name": "x", "host": "198.41.0.4", "port": 6379})
        assert {fault["pointer"] for fault in port.json()["errors"]} == {"/port"}
        made = await api.post("/v1/transports", json={"name": "x", "host": "198.41.0.4", "port": 25, "tls": "none"})
        await execute_sql("UPDATE transports SET host = '127.0.0.1', port = :port", port=own.port)
        probed = (await api.post(f"/v1/transports/{made.json()['id']}/probe")).json()
        assert "address_refused" in probed["steps"][0]["detail"]
        mail = await post(api)
        await work(mail)
        assert (await look(api, mail))["error"]["code"] == "address_refused"
        assert own.sessions == []


async def test_every_fault_of_a_transport_is_named(api: httpx.AsyncClient, own: Sink) -> None:
    wrong = {"name": "", "host": "a b", "port": 0, "username": "x", "pool_size": 99, "domains": ["ok.example", "a b"]}
    answer = await api.post("/v1/transports", json=wrong)
    assert answer.status_code == 422
    assert {fault["pointer"] for fault in answer.json()["errors"]} == {
        "/name", "/host", "/port", "/password", "/pool_size", "/domains/1",
    }  # fmt: skip
    await add(api, own)
    body = {"name": "own", "host": own.host, "port": own.port}
    again = await api.post("/v1/transports", json=body)
    assert (again.status_code, again.json()["code"]) == (409, "transport-exists")
    assert (await api.get("/v1/transports/tr_x")).status_code == 404


async def test_where_no_key_outlives_the_process_no_password_is_kept(
    settings: Settings, make_key: MakeKey, own: Sink
) -> None:
    where = {"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url, "OUTBOUND_PRIVATE": "true"}
    async with client_of(Settings.from_env(where)) as api:
        api.headers["Authorization"] = f"Bearer {await make_key()}"
        body = {"name": "x", "host": own.host, "port": own.port, "tls": "none", "username": "a", "password": "b"}
        answer = await api.post("/v1/transports", json=body)
        assert (answer.status_code, answer.json()["code"]) == (503, "no-encryption-key")
