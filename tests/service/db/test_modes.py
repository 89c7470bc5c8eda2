"""Live and test data of a tenant are kept under two ids, so whatever keeps tenants apart keeps the modes apart."""

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from service.db import engine as db
from service.db import migrate
from service.db.tenancy import API, WORKER, acting_for, id_in_test_mode, mode_of
from service.dev.databases import Databases
from service.settings import Settings

BEFORE = "20261129_suspects"
SHOP = uuid7()
LIVE, TEST = uuid7(), uuid7()

EMAIL = """
INSERT INTO emails (id, tenant_id, mode, message_id, sender, to_, recipients, subject, request_id, attachments)
VALUES (:id, :tenant, :mode, '<m@example.org>', 'a@example.org', '{b@example.org}', '{b@example.org}', 'Hello', 'r',
    CAST('[{"digest": "00ff"}]' AS jsonb))
"""
MESSAGE = """
INSERT INTO messages (id, tenant_id, actor, queue, priority, args, headers, state)
SELECT :id, t.id, 'emails.send_email', 'email', 5, '[]', jsonb_build_object('tenant_id', t.id), 'done' FROM tenants t
"""
STORED = (
    "INSERT INTO tenants (id, name) VALUES (:tenant, 'shop')",
    "INSERT INTO api_keys (id, tenant_id, prefix, hash, scopes, mode)"
    " SELECT gen_random_uuid(), :tenant, 'cb', sha256(m::bytea), '{*}', m FROM unnest('{live,test}'::text[]) AS m",
    "INSERT INTO attachment_files (tenant_id, digest, data) VALUES (:tenant, decode('00ff', 'hex'), 'x')",
    "INSERT INTO templates (tenant_id, key, newest) VALUES (:tenant, 'greeting', 1)",
    "INSERT INTO organizations (tenant_id, id, plan) SELECT :tenant, o, (SELECT key FROM plans ORDER BY rank LIMIT 1)"
    " FROM unnest('{acme,other}'::text[]) AS o",
    "INSERT INTO jobs (id, tenant_id, type, mode, organization_id, priority, cost, input)"
    " VALUES (gen_random_uuid(), :tenant, 't', 'test', 'acme', 'normal', 0, '{}')",
    "INSERT INTO idempotency_keys (tenant_id, key, fingerprint, status, response, expires_at)"
    " VALUES (:tenant, E'test\\nk', '', 200, '{}', 'infinity'), (:tenant, 'k', '', 200, '{}', 'infinity')",
    "INSERT INTO users (tenant_id, mode, id) VALUES (:tenant, 'test', 'ada'), (:tenant, 'live', 'ada')",
    "INSERT INTO preferences (user_no, category, channel, tenant_id, pace)"
    " SELECT no, 'news', 'email', tenant_id, 'off' FROM users",
)
OWNERS = {
    "emails": "SELECT mode, tenant_id FROM emails",
    "messages": "SELECT e.mode, m.tenant_id FROM messages m JOIN emails e USING (id)"
    " WHERE m.headers ->> 'tenant_id' = m.tenant_id::text",
    "jobs": "SELECT mode, tenant_id FROM jobs",
    "preferences": "SELECT u.mode, p.tenant_id FROM preferences p JOIN users u ON u.no = p.user_no",
    "attachment_files": "SELECT e.mode, f.tenant_id FROM attachment_files f JOIN emails e USING (tenant_id)",
}


@pytest.fixture
def ordinary(databases: Databases) -> Iterator[Settings]:
    """A database that belongs to a user who is no superuser, migrated to the version before."""
    databases.execute("CREATE ROLE plain LOGIN PASSWORD 'plain' NOSUPERUSER NOBYPASSRLS NOINHERIT")
    databases.execute("CREATE DATABASE plain OWNER plain")
    for role in (API, WORKER):
        databases.execute(f"DO $$ BEGIN CREATE ROLE {role} NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
        databases.execute(f"GRANT {role} TO plain WITH INHERIT FALSE")
    url = make_url(databases.url).set(database="plain", username="plain", password="plain")
    settings = Settings.from_env({"DATABASE_URL": url.render_as_string(hide_password=False)})
    assert migrate.run(settings, BEFORE) == 0
    yield settings
    databases.drop("plain")
    databases.execute("DROP ROLE plain")


async def run(settings: Settings, *statements: str, **values: Any) -> list[Any]:
    """Run statements as a worker, in one transaction; the rows of the last."""
    engine = db.create_engine(settings, role=WORKER)
    try:
        async with engine.begin() as connection:
            for statement in statements:
                found = await connection.execute(text(statement), values)
            return list(found.all()) if found.returns_rows else []
    finally:
        await engine.dispose()


async def downgraded(settings: Settings) -> None:
    engine = db.create_engine(settings, role=None)
    try:
        await migrate.downgrade(engine, BEFORE)
    finally:
        await engine.dispose()


def test_rows_of_test_keys_move_to_the_test_id_and_nothing_else_does(ordinary: Settings) -> None:
    asyncio.run(run(ordinary, *STORED, tenant=SHOP))
    for id, mode in ((LIVE, "live"), (TEST, "test")):
        asyncio.run(run(ordinary, EMAIL, MESSAGE, id=id, tenant=SHOP, mode=mode))
    assert migrate.run(ordinary) == 0
    for table, statement in OWNERS.items():
        rows = asyncio.run(run(ordinary, statement))
        assert rows, table
        assert all(row.tenant_id == (SHOP if row.mode == "live" else id_in_test_mode(SHOP)) for row in rows), table
    assert {row.mode for row in asyncio.run(run(ordinary, OWNERS["messages"]))} == {"live", "test"}
    keys = asyncio.run(
        run(ordinary, "SELECT key, tenant_id FROM idempotency_keys ORDER BY tenant_id = :shop", shop=SHOP)
    )
    assert [tuple(key) for key in keys] == [("k", id_in_test_mode(SHOP)), ("k", SHOP)]
    shared = "SELECT count(DISTINCT tenant_id) FROM {} WHERE tenant_id = ANY(:both)"
    both = [SHOP, id_in_test_mode(SHOP)]
    for table in ("templates", "organizations"):
        assert asyncio.run(run(ordinary, shared.format(table), both=both))[0][0] == 2, table
    found = asyncio.run(run(ordinary, "SELECT f.mode, f.tenant_id FROM api_keys k, access_find_key(k.hash) f"))
    assert {row.mode: row.tenant_id for row in found} == {"live": SHOP, "test": id_in_test_mode(SHOP)}
    asyncio.run(downgraded(ordinary))
    assert [row.mode for row in asyncio.run(run(ordinary, OWNERS["emails"]))] == ["live"]


@pytest.mark.parametrize("id", [uuid7(), uuid4(), UUID(int=0), UUID(int=2**128 - 1)])
async def test_the_test_id_is_the_same_to_the_database(engine: AsyncEngine, id: UUID) -> None:
    async with engine.connect() as connection:
        asked = text(
            "SELECT app_test_id(:id) AS test, app_is_test(app_test_id(:id)) AS is_test, app_is_test(:id) AS own"
        )
        row = (await connection.execute(asked, {"id": id})).one()
    assert (row.test, row.is_test, row.own) == (id_in_test_mode(id), True, False)
    assert (mode_of(id), mode_of(row.test), mode_of(None)) == ("live", "test", "live")
    assert id_in_test_mode(row.test) == row.test


@pytest.mark.parametrize("mode", ["live", "test"])
async def test_no_row_is_stored_under_the_id_of_the_other_mode(engine: AsyncEngine, mode: str) -> None:
    wrong = SHOP if mode == "test" else id_in_test_mode(SHOP)
    with pytest.raises(DBAPIError) as refused:
        async with engine.begin() as connection:
            await connection.execute(text(EMAIL), {"id": uuid7(), "tenant": wrong, "mode": mode})
    assert isinstance(db.cause(refused.value), asyncpg.CheckViolationError)


async def test_every_table_with_a_mode_requires_that_of_its_tenant(engine: AsyncEngine) -> None:
    missing = """
        SELECT c.table_name FROM information_schema.columns c WHERE c.column_name = 'mode' AND c.table_schema = 'public'
            AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.table_name::regclass AND k.contype = 'c'
                AND k.convalidated AND pg_get_constraintdef(k.oid) LIKE '%app_is_test(tenant_id)%')
    """
    async with engine.connect() as connection:
        assert (await connection.execute(text(missing))).scalars().all() == ["api_keys"]


@pytest.mark.parametrize("table", ["api_keys", "tenants"])
async def test_the_api_may_read_keys_and_tenants_and_write_neither(settings: Settings, table: str) -> None:
    engine = db.create_engine(settings, role=API)
    try:
        with acting_for(SHOP):
            async with engine.connect() as connection:
                assert (await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one() == 0
            for statement in (
                f"DELETE FROM {table}",
                f"UPDATE {table} SET id = id",
                f"INSERT INTO {table} DEFAULT VALUES",
            ):
                with pytest.raises(DBAPIError) as refused:
                    async with engine.begin() as connection:
                        await connection.execute(text(statement))
                assert isinstance(db.cause(refused.value), asyncpg.InsufficientPrivilegeError), statement
    finally:
        await engine.dispose()
