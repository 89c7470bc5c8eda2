"""Every route of the document: without a key 401, without its scope 403, with another tenant's key nothing of ours."""

import asyncio
import dataclasses
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal, NamedTuple

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.settings import Settings
from tests.service.conftest import MakeKey, client_of

OPEN = re.compile(r"/health/|/metrics$|/u/\{|/schema|/mailbox")
ENDLESS = re.compile(r"/(stream|ws)$")
CHOSEN = {
    "user_id": "ada",
    "topic": "harbour",
    "organization_id": "acme",
    "key": "harbour",
    "locale": "en",
    "name": "main",
}
"""Path parameters whose values a tenant chooses: what is another's is not there, and may be made anew."""

UUIDS = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}")
NOWHERE = "00000000-0000-7000-8000-000000000000"


OURS = {
    "POST /v1/transports": {"host": "127.0.0.1"},
    "POST /v1/templates/{key}/publish": {"version": 1},
    "POST /v1/templates/{key}/preview": {"version": 1},
    "PATCH /v1/emails/{email_id}": {"scheduled_at": "2096-01-01T00:00:00Z"},
}
"""What the document's example needs to be stored on this machine."""


REFUSED = {
    "POST /send-test-email",  # the sender of this machine is no address that it may go to
    "PATCH /v1/bulk/{id}",  # it is running
    "PUT /v1/bulk/{id}/recipients",
    "POST /v1/emails/{email_id}/resend",  # it is queued
    "POST /v1/jobs/{job_id}/retry",
}
"""Routes that refuse the document's example in the state that the routes before leave."""
ORDER = ("PUT", "POST", "PATCH")


class Operation(NamedTuple):
    method: str
    path: str
    body: Any
    media: str = "application/json"

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    """Each operation that takes a key, with the body that the document shows as an example."""
    for path, item in document["paths"].items():
        for method in item.keys() & {"get", "post", "put", "patch", "delete"}:
            if not OPEN.search(path):
                content = item[method].get("requestBody", {}).get("content", {})
                body = content.get("application/json", {}).get("example")
                more = OURS.get(f"{method.upper()} {path}")
                media = "text/csv" if "text/csv" in content else "application/json"
                yield Operation(method.upper(), path, body | more if more else body, media)


def filled(path: str, values: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], NOWHERE), path)


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(dataclasses.replace(settings, outbound_private=True)) as opened:
        yield opened


@pytest.fixture
async def routes(client: httpx.AsyncClient) -> list[Operation]:
    return sorted(operations((await client.get("/schema/openapi.json")).json()), key=lambda each: each[:2])


async def ask(client: httpx.AsyncClient, operation: Operation, values: dict[str, str], key: str = "") -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    body: dict[str, Any] = {"json": operation.body}
    if operation.media == "text/csv":
        headers["Content-Type"], body = (
            "text/csv",
            {"content": b"id\nada\n" if operation.method == "PATCH" else b"email\nada@example.org\n"},
        )
    return await client.request(operation.method, filled(operation.path, values), headers=headers, **body)


async def test_every_route_takes_a_key_and_its_scope(
    client: httpx.AsyncClient, routes: list[Operation], make_key: MakeKey
) -> None:
    powerless = await make_key("nothing:at-all")
    wrong = {}
    for operation in routes:
        bare, weak = await ask(client, operation, CHOSEN), await ask(client, operation, CHOSEN, powerless)
        if (bare.status_code, weak.status_code) != (401, 403):
            wrong[str(operation)] = bare.status_code, weak.status_code
    assert not wrong


async def test_links_lead_from_what_is_made_to_all_that_takes_its_id(client: httpx.AsyncClient) -> None:
    document = (await client.get("/schema/openapi.json")).json()
    known = {each["operationId"]: path for path, item in document["paths"].items() for each in item.values()}
    made = document["paths"]["/v1/emails"]["post"]["responses"]["202"]["links"]
    assert made["get /v1/emails/{email_id}"]["parameters"] == {"email_id": "$response.body#/id"}
    assert made["get /v1/tasks/{task_id}"]["parameters"] == {"task_id": "$response.body#/task_id"}
    for item in document["paths"].values():
        for operation in item.values():
            for answer in operation["responses"].values():
                for link in answer.get("links", {}).values():
                    assert set(re.findall(r"{(\w+)}", known[link["operationId"]])) == link["parameters"].keys()


async def test_a_key_in_the_address_is_refused_and_not_logged(
    client: httpx.AsyncClient, make_key: MakeKey, capsys: pytest.CaptureFixture[str]
) -> None:
    key = await make_key()
    for query in (f"key={key}", f"api_key={key.replace('_', '%5F')}", key, f"a=b&Authorization=Bearer%20{key}"):
        answer = await client.get(f"/v1/emails?{query}", headers={"Authorization": f"Bearer {key}"})
        assert answer.status_code == 401, query
    await client.get(f"/v1/emails/{key}")
    assert key[8:] not in capsys.readouterr().out


async def test_a_log_names_the_route_and_nothing_of_the_path(
    client: httpx.AsyncClient, make_key: MakeKey, capsys: pytest.CaptureFixture[str]
) -> None:
    headers, token = {"Authorization": f"Bearer {await make_key()}"}, "a-token-of-an-unsubscribe-link"
    await client.get(f"/u/{token}")
    await client.post(f"/u/{token}", data={"List-Unsubscribe": "One-Click"})
    await client.get("/v1/users/ada@example.org", headers=headers)
    await client.get("/no/such/path/of/ada@example.org", headers=headers)
    logged = capsys.readouterr().out
    assert "/u/{token}" in logged
    assert "/v1/users/{user_id}" in logged
    assert token not in logged
    assert "ada@" not in logged


class Holder(NamedTuple):
    """Whose key it is: a tenant and a mode."""

    tenant: str
    mode: Literal["live", "test"] = "live"


async def everything(engine: AsyncEngine, owner: Holder) -> dict[str, str]:
    """The rows of a tenant's mode, table by table, as text, once every gate has let in what it has room for."""
    owned = "SELECT table_name FROM information_schema.columns WHERE column_name = 'tenant_id'"
    outside = "SELECT count(*) FROM messages WHERE gate IS NOT NULL AND NOT admitted AND state = 'queued'"
    found = {}
    async with engine.connect() as connection:
        async with asyncio.timeout(30):
            while (await connection.execute(text(outside))).scalar_one():  # noqa: ASYNC110 (Postgres sets no event)
                await asyncio.sleep(0.02)
        for table in (await connection.execute(text(owned))).scalars().all():
            if table not in {"api_keys", "idempotency_keys"}:
                rows = (
                    f"SELECT string_agg(t::text, ' ' ORDER BY t::text) FROM {table} t WHERE tenant_id ="
                    " (SELECT CASE :mode WHEN 'test' THEN test_id ELSE id END FROM tenants WHERE name = :tenant)"
                )
                found[table] = str((await connection.execute(text(rows), owner._asdict())).scalar_one())
    return found


async def furnish(client: httpx.AsyncClient, routes: list[Operation], key: str) -> dict[str, str]:
    """Do everything that the document shows, in an order that works; a value for each path parameter."""
    values = dict(CHOSEN)
    refused: dict[str, str] = {}
    first = ["PUT /v1/organizations/{organization_id}", "PUT /v1/users/{user_id}", "POST /v1/emails"]
    creates = re.compile(r"POST [^{]*$")
    wanted = [each for each in routes if each.method in ORDER and not re.search(r"cancel|remove|archive", each.path)]
    for operation in sorted(
        wanted,
        key=lambda each: (
            *(str(each) not in first, not creates.match(str(each))),
            *(each.path.count("/"), ORDER.index(each.method)),
        ),
    ):
        answer = await ask(client, operation, values, key)
        assert answer.status_code < 500, (operation, answer.text)
        if answer.is_client_error:
            refused[str(operation)] = answer.text
        told = (
            answer.json() if answer.is_success and answer.content and "json" in answer.headers["content-type"] else {}
        )
        if isinstance(told, dict) and isinstance(told.get("id"), str):
            last = operation.path.rpartition("/")[2].replace("test", "deliveries")
            for parameter in {name for each in routes for name in re.findall(rf"/{last}/{{(\w+)}}", each.path)}:
                values.setdefault(parameter, told["id"])
            values |= {name: told[name] for name in ("task_id", "request_id") if name in told and name not in values}
    missing = {name for each in routes for name in re.findall(r"{(\w+)}", each.path)} - values.keys()
    assert not missing, f"nothing was stored that fills {missing}: {refused}"
    assert refused.keys() <= REFUSED, {name: refused[name] for name in refused.keys() - REFUSED}
    return values


async def assert_all_is_there(
    client: httpx.AsyncClient, routes: list[Operation], values: dict[str, str], key: str
) -> None:
    """The control: by the key that stored it, every route finds what it is asked for; what deletes comes last."""
    wrong = {}
    for operation in sorted(routes, key=lambda each: (each.method == "DELETE", each.method != "GET")):
        if not ENDLESS.search(operation.path) and re.search(r"{(?!user_id|topic)", operation.path):
            answer = await ask(client, operation, values, key)
            if answer.status_code in {401, 403, 404} or answer.status_code >= 500:
                wrong[str(operation)] = answer.status_code, answer.text[:300]
    assert not wrong


@pytest.mark.parametrize(
    "pair",
    [
        (Holder("ours"), Holder("theirs")),
        (Holder("ours"), Holder("ours", "test")),
        (Holder("ours", "test"), Holder("ours")),
    ],
    ids=["another tenant", "a test key", "a live key for test data"],
)
async def test_no_route_returns_or_changes_what_belongs_to_another_tenant_or_mode(
    client: httpx.AsyncClient,
    routes: list[Operation],
    make_key: MakeKey,
    engine: AsyncEngine,
    pair: tuple[Holder, Holder],
) -> None:
    """One key stores one of everything; the other then asks every route for it, by its real ids."""
    owner, other = pair
    key = await make_key(**owner._asdict())
    values = await furnish(client, routes, key)
    ours = await everything(engine, owner)
    theirs = await make_key(**other._asdict())
    secrets = {found.replace("-", "") for rows in ours.values() for found in UUIDS.findall(rows)}
    assert len(secrets) > 10
    wrong = {}
    for operation in routes:
        if ENDLESS.search(operation.path) and operation.path.startswith("/v1/users"):
            continue  # theirs may have made a user of this name by now: their own, whose stream does not end
        answer = await ask(client, operation, values, theirs)
        named = re.findall(r"{(\w+)}", operation.path)
        asked = {value.replace("-", "") for name, value in values.items() if name in named}
        asked |= {found.replace("-", "") for found in UUIDS.findall(str(operation.body))}
        told = {found.replace("-", "") for found in UUIDS.findall(answer.text)} & secrets
        if answer.status_code == 403 or answer.status_code >= 500 or told - {each[-32:] for each in asked}:
            wrong[str(operation)] = answer.status_code, answer.text[:300]
        if set(named) - CHOSEN.keys() and answer.status_code not in {404, 400, 422}:
            wrong[str(operation)] = answer.status_code, answer.text[:300]
    assert not wrong
    assert await everything(engine, owner) == ours
    await assert_all_is_there(client, routes, values, key)
