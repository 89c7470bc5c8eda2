"""Who holds an admin's key looks at every tenant, and acts for one at a time; nobody else leaves their own."""

import re
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.access.tenants import LIST, tenants
from service.console.figures import HELD, STATES
from service.console.sessions import Session, seal
from service.db import engine as db
from service.db.tenancy import API
from service.settings import Settings
from tests.plans import touched
from tests.service.conftest import MakeKey
from tests.service.console.conftest import confirm, press, token

MAIL = {"to": "ada@example.org", "subject": "Of the shop", "text": "It works."}


@pytest.fixture
async def shop(api: httpx.AsyncClient, make_key: MakeKey) -> dict[str, Any]:
    """A mail of the tenant `shop`, beside which others exist."""
    key = await make_key("*", tenant="shop")
    answer = await api.post("/v1/emails", json=MAIL, headers={"Authorization": f"Bearer {key}"})
    assert answer.status_code == 202
    mail: dict[str, Any] = answer.json()
    return mail | {"place": f"/console/emails/{mail['id'][3:]}", "key": key}


@pytest.fixture
async def admin(browser: httpx.AsyncClient, make_key: MakeKey) -> httpx.AsyncClient:
    """A browser signed in as an admin of the tenant `tests`."""
    answer = await browser.post("/console/sign-in", data={"key": await make_key("*", "admin")})
    assert answer.status_code == 303
    return browser


async def id_of(engine: AsyncEngine, name: str) -> str:
    async with engine.connect() as connection:
        found = await connection.execute(text("SELECT id FROM tenants WHERE name = :name"), {"name": name})
        return str(found.scalar_one())


async def switch(browser: httpx.AsyncClient, engine: AsyncEngine, name: str) -> httpx.Response:
    return await press(browser, "/console/tenants/switch", tenant=await id_of(engine, name))


async def test_an_admin_chooses_a_tenant_looks_at_it_and_acts_for_it(
    admin: httpx.AsyncClient, engine: AsyncEngine, shop: dict[str, Any], api: httpx.AsyncClient
) -> None:
    assert (await admin.get(shop["place"])).status_code == 404
    assert "<strong>shop</strong>" in (await admin.get("/console/tenants?q=SHO")).text
    assert "No tenant matches." in (await admin.get("/console/tenants?q=nobody")).text
    assert (await switch(admin, engine, "shop")).headers["location"] == "/console?done=switched"
    shown = await admin.get(shop["place"])
    assert (shown.status_code, "<strong>shop</strong>" in shown.text) == (200, True)
    _, done = await confirm(admin, f"{shop['place']}/cancel")
    assert done.headers["location"].endswith("done=canceled")
    told = await api.get(f"/v1/emails/{shop['id']}", headers={"Authorization": f"Bearer {shop['key']}"})
    assert told.json()["status"] == "canceled"
    assert (await switch(admin, engine, "tests")).status_code == 303
    assert (await admin.get(shop["place"])).status_code == 404


async def test_a_form_and_a_page_of_the_tenant_before_do_nothing_for_the_next(
    admin: httpx.AsyncClient, engine: AsyncEngine, shop: dict[str, Any]
) -> None:
    old, own = await token(admin), await id_of(engine, "tests")
    await switch(admin, engine, "shop")
    answer = await admin.post(f"{shop['place']}/cancel", data={"csrf": old})
    assert (answer.status_code, "of another session or tenant" in answer.text) == (403, True)
    stale = await admin.get("/console/emails", headers={"HX-Request": "true", "Callboard-Tenant": own})
    assert (stale.status_code, stale.headers["hx-refresh"], stale.text) == (409, "true", "")
    shown = re.search(r"hx-headers='\{\"Callboard-Tenant\": \"([0-9a-f-]+)\"\}'", (await admin.get("/console")).text)
    assert shown is not None
    fresh = await admin.get("/console/emails", headers={"HX-Request": "true", "Callboard-Tenant": shown[1]})
    assert (fresh.status_code, "Of the shop" in fresh.text) == (200, True)


async def test_an_operator_who_is_no_admin_stays_with_the_tenant_of_the_key(
    browser: httpx.AsyncClient, engine: AsyncEngine, shop: dict[str, Any], settings: Settings
) -> None:
    assert "/console/tenants" not in (await browser.get("/console")).text
    listed, switched = await browser.get("/console/tenants"), await switch(browser, engine, "shop")
    assert (listed.status_code, "--scope admin" in listed.text, "shop" in listed.text) == (403, True, False)
    assert switched.status_code == 403
    assert (await browser.get(shop["place"])).status_code == 404
    # not even with a cookie that is signed: the key itself is asked each time
    async with engine.connect() as connection:
        statement = "SELECT id, tenant_id FROM api_keys WHERE scopes @> '{operator}' ORDER BY id LIMIT 1"
        key = (await connection.execute(text(statement))).one()
    session = Session.begin(key.id, key.tenant_id).acting_for(UUID(await id_of(engine, "shop")))
    async with engine.begin() as connection:
        await connection.execute(
            text("INSERT INTO console_sessions VALUES (:id, :tenant, :key, now() + interval '1 h')"),
            {"id": session.id, "tenant": key.tenant_id, "key": key.id},
        )
    browser.cookies.set("callboard_console", seal(settings.secret_key, session), path="/console")
    assert (await browser.get(shop["place"])).status_code == 401


async def test_a_tenant_that_does_not_exist_is_not_switched_to_and_a_revoked_admin_is_out(
    admin: httpx.AsyncClient, engine: AsyncEngine, shop: dict[str, Any]
) -> None:
    for odd in ("", "nonsense", "00000000-0000-7000-8000-000000000000"):
        assert (await press(admin, "/console/tenants/switch", tenant=odd)).status_code == 404
    await switch(admin, engine, "shop")
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE api_keys SET scopes = '{operator}' WHERE scopes @> '{admin}'"))
    assert (await admin.get("/console")).status_code == 401


async def test_the_database_tells_of_tenants_only_to_a_good_key_of_an_admin(
    settings: Settings, engine: AsyncEngine, make_key: MakeKey
) -> None:
    await make_key("*", "operator")
    await make_key("admin", tenant="shop")
    as_api = db.create_engine(settings, role=API)
    try:
        async with engine.connect() as connection:
            keys = (await connection.execute(text("SELECT id, scopes FROM api_keys"))).all()
        async with as_api.connect() as connection:
            told = {tuple(key.scopes): [each.name for each in await tenants(connection, key.id)] for key in keys}
            assert told == {("*", "operator"): [], ("admin",): ["shop", "tests"]}
            assert (await connection.execute(text("SELECT count(*) FROM tenants"))).scalar_one() == 0
        async with engine.begin() as connection:
            await connection.execute(text("UPDATE api_keys SET revoked_at = clock_timestamp()"))
        async with as_api.connect() as connection:
            assert not [each for key in keys for each in await tenants(connection, key.id)]
    finally:
        await as_api.dispose()


LETTERS = """
INSERT INTO messages (id, tenant_id, actor, queue, priority, args, state, finished_at)
SELECT webhooks_new_id(), (SELECT id FROM tenants WHERE name = :tenant), 'demo.work', 'default', 6, '[[], {}]',
    (ARRAY['dead', 'held'])[1 + n % 2], now()
FROM generate_series(1, :rows) AS n
"""
INDEX = "SELECT indexdef FROM pg_indexes WHERE indexname = 'messages_letters'"


async def dead(engine: AsyncEngine, tenant: str, rows: int) -> None:
    """Messages of a tenant that wait for a person."""
    async with engine.begin() as connection:
        index = (await connection.execute(text(INDEX))).scalar_one()
        await connection.execute(text("DROP INDEX messages_letters"))
        await connection.execute(text(LETTERS), {"tenant": tenant, "rows": rows})
        await connection.execute(text(index))


async def test_the_list_says_how_much_waits_and_stops_counting_at_a_thousand(
    admin: httpx.AsyncClient, engine: AsyncEngine, shop: dict[str, Any]
) -> None:
    await dead(engine, "shop", 1_000)
    await dead(engine, "tests", 1_001)
    listed = (await admin.get("/console/tenants")).text
    shown = re.findall(r"<strong>(\w+)</strong>.*?needs attention\">([^<]+)<", listed)
    assert shown == [("shop", "1,000"), ("tests", "1,000+")]
    assert "1,001" in (await admin.get("/console")).text


async def pages(connection: AsyncConnection, statement: TextClause, **values: object) -> int:
    """Pages that a statement touches, those of the functions it calls too."""
    explained = text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement.text}")
    return touched((await connection.execute(explained, values)).scalar_one()[0]["Plan"])


@pytest.mark.timeout(400)
async def test_the_list_of_tenants_and_the_overview_touch_no_more_pages_among_a_million_letters(
    engine: AsyncEngine, make_key: MakeKey
) -> None:
    await make_key("admin", tenant="shop")
    await make_key("*")
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE messages SET UNLOGGED"))  # quicker to fill; read as any other
        found = await connection.execute(text("SELECT id, tenant_id FROM api_keys WHERE 'admin' = ANY (scopes)"))
        admin, shop = found.one()
    seen = []
    for rows in (2_000, 998_000):
        await dead(engine, "shop", 5)
        await dead(engine, "tests", rows)
        async with engine.connect() as connection:
            await connection.execute(text("ANALYZE messages"))
            listed = await pages(connection, LIST, key_id=admin, part="", after="", limit=51, most=1_001)
            own = await pages(connection, HELD, tenant_id=shop, states=list(STATES), most=10_001)
            seen.append((listed, own))
    few, many = seen
    assert many[0] <= 2 * few[0], seen
    assert many[1] <= 2 * few[1], seen
