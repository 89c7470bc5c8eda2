"""Tenants are kept apart by the database itself, whatever a statement forgets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from service.broadcasts import repository
from service.db import engine as db
from service.db import migrate
from service.db.tenancy import API, WORKER, acting_for
from service.dev.databases import Databases
from service.dev.postgres import SERVICE
from service.settings import Settings

OURS, THEIRS = uuid7(), uuid7()
OPEN = {"alembic_version", "plans", "message_crons", "message_starts"}
"""Tables that hold nothing of any tenant."""


@pytest.fixture
async def as_api(settings: Settings) -> AsyncIterator[AsyncEngine]:
    engine = db.create_engine(settings, role=API)
    yield engine
    await engine.dispose()


@pytest.fixture
async def as_worker(settings: Settings) -> AsyncIterator[AsyncEngine]:
    engine = db.create_engine(settings, role=WORKER)
    yield engine
    await engine.dispose()


async def rows(engine: AsyncEngine, sql: str, **values: Any) -> list[Any]:
    async with engine.begin() as connection:
        answer = await connection.execute(text(sql), values)
        return list(answer.all()) if answer.returns_rows else []


async def test_every_table_of_tenants_forces_its_policies(engine: AsyncEngine) -> None:
    found = await rows(
        engine,
        "SELECT c.relname AS name, c.relrowsecurity AND c.relforcerowsecurity AS forced,"
        " EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id') AS owned,"
        " array(SELECT p.polname::text FROM pg_policy p WHERE p.polrelid = c.oid ORDER BY 1) AS policies"
        " FROM pg_class c WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace",
    )
    lax = [row.name for row in found if not row.forced and row.name not in OPEN]
    assert not lax, f"isolate() them in their migrations (service/db/row_security.py): {lax}"
    assert not [row.name for row in found if row.owned and row.policies != ["every_tenant", "tenant"]]


async def test_neither_role_may_pass_row_level_security_or_owns_anything(engine: AsyncEngine) -> None:
    acting = await rows(engine, "SELECT * FROM pg_roles WHERE rolname IN (:api, :worker)", api=API, worker=WORKER)
    assert {role.rolname for role in acting} == {API, WORKER}
    for role in acting:
        assert not any((role.rolsuper, role.rolbypassrls, role.rolcreaterole, role.rolcreatedb)), role
    owned = "SELECT relname FROM pg_class WHERE pg_get_userbyid(relowner) IN ('callboard_api', 'callboard_worker')"
    assert not await rows(engine, owned)


async def test_the_user_of_a_server_of_our_own_may_create_roles_and_nothing_more(engine: AsyncEngine) -> None:
    (user,) = await rows(engine, "SELECT * FROM pg_roles WHERE rolname = :name", name=SERVICE)
    assert (user.rolcanlogin, user.rolcreaterole) == (True, True), "it migrates, which creates the roles it acts as"
    assert not any((user.rolsuper, user.rolbypassrls, user.rolcreatedb, user.rolreplication)), user


async def store(engine: AsyncEngine, tenant: UUID) -> UUID:
    id = uuid7()
    await rows(engine, "INSERT INTO tenants (id, name) VALUES (:id, :name)", id=tenant, name=str(tenant))
    await rows(
        engine,
        "INSERT INTO messages (id, tenant_id, actor, queue, priority, args) VALUES (:id, :tenant, 'a', 'q', 5, '[]')",
        id=id,
        tenant=tenant,
    )
    await rows(engine, "INSERT INTO message_attempts (message_id, epoch, outcome) VALUES (:id, 1, 'done')", id=id)
    return id


@pytest.mark.parametrize("table", ["messages", "message_attempts", "tenants"])
async def test_the_api_sees_nothing_but_the_rows_of_those_it_acts_for(
    as_api: AsyncEngine, as_worker: AsyncEngine, table: str
) -> None:
    for tenant in (OURS, THEIRS):
        await store(as_worker, tenant)
    count = f"SELECT count(*) AS found FROM {table}"
    assert (await rows(as_api, count))[0].found == 0
    with acting_for(OURS):
        assert (await rows(as_api, count))[0].found == 1
    with acting_for(OURS, THEIRS):
        assert (await rows(as_api, count))[0].found == 2
    assert (await rows(as_api, count))[0].found == 0
    assert (await rows(as_worker, count))[0].found == 2


async def test_the_api_changes_and_writes_nothing_of_others(as_api: AsyncEngine, as_worker: AsyncEngine) -> None:
    theirs = await store(as_worker, THEIRS)
    with acting_for(OURS):
        assert not await rows(as_api, "UPDATE messages SET key = 'mine' WHERE id = :id RETURNING id", id=theirs)
        assert not await rows(as_api, "DELETE FROM messages RETURNING id")
        with pytest.raises(DBAPIError) as refused:
            await store(as_api, THEIRS)
    assert isinstance(db.cause(refused.value), asyncpg.InsufficientPrivilegeError)


async def test_a_role_that_is_missing_says_to_migrate(settings: Settings) -> None:
    engine = db.create_engine(settings, role="callboard_none")  # type: ignore[arg-type]
    with pytest.raises(Exception, match="does not exist") as missing:
        await rows(engine, "SELECT 1")
    assert db.is_older(missing.value)
    await engine.dispose()


@pytest.fixture
def ordinary(databases: Databases) -> Iterator[str]:
    """The URL of a database that belongs to a user who may do nothing else on its server."""
    databases.execute("CREATE ROLE ordinary LOGIN PASSWORD 'ordinary' NOSUPERUSER NOBYPASSRLS")
    databases.execute("CREATE DATABASE ordinary OWNER ordinary")
    url = make_url(databases.url).set(database="ordinary", username="ordinary", password="ordinary")
    yield url.render_as_string(hide_password=False)
    databases.drop("ordinary")
    databases.execute("DROP ROLE ordinary")


def test_an_ordinary_user_is_told_what_an_administrator_has_to_run(ordinary: str, databases: Databases) -> None:
    settings = Settings.from_env({"DATABASE_URL": ordinary})
    said: list[str] = []
    assert migrate.run(settings, say=said.append) == 1
    assert 'GRANT callboard_api, callboard_worker TO "ordinary"' in said[0]
    administer(databases)
    assert migrate.run(settings, say=said.append) == 0
    asyncio.run(kept_apart(settings))


def administer(databases: Databases) -> None:
    """What the message asks an administrator for."""
    for role in (API, WORKER):
        with contextlib.suppress(asyncpg.DuplicateObjectError):
            databases.execute(f"CREATE ROLE {role} NOLOGIN")
    databases.execute('GRANT callboard_api, callboard_worker TO "ordinary"')


async def kept_apart(settings: Settings) -> None:
    as_api, as_worker = db.create_engine(settings, role=API), db.create_engine(settings, role=WORKER)
    await store(as_worker, OURS)
    assert not await rows(as_api, "SELECT id FROM messages")
    assert (await rows(as_api, "SELECT due FROM ledger_depths()"))[0].due == 1
    await as_api.dispose()
    await as_worker.dispose()


BULKS = """
INSERT INTO bulks (id, tenant_id, mode, name, status, request, total, expanded, scheduled_at)
SELECT gen_random_uuid(), :tenant, 'live', name, status, '{}', total, expanded, now() + wait
FROM (VALUES ('ended', 'running', 2, 2, NULL::interval), ('stopped', 'canceled', 2, 2, NULL),
    ('open', 'open', 0, 0, NULL), ('unwritten', 'running', 2, 1, NULL), ('later', 'running', 0, 0, '1 day')
) AS b(name, status, total, expanded, wait)
"""


def test_an_owner_who_sees_no_rows_migrates_those_of_every_tenant(ordinary: str, databases: Databases) -> None:
    settings = Settings.from_env({"DATABASE_URL": ordinary})
    databases.execute("ALTER ROLE ordinary NOINHERIT")
    administer(databases)
    assert migrate.run(settings, "20261122_letters") == 0
    asyncio.run(as_every_tenant(settings, BULKS, tenant=OURS))
    assert migrate.run(settings) == 0
    found = asyncio.run(as_every_tenant(settings, "SELECT name FROM bulks WHERE ended_at IS NOT NULL"))
    assert sorted(row.name for row in found) == ["ended", "stopped"]
    asyncio.run(nothing_ends(settings))


async def as_every_tenant(settings: Settings, sql: str, **values: Any) -> list[Any]:
    as_worker = db.create_engine(settings, role=WORKER)
    try:
        return await rows(as_worker, sql, **values)
    finally:
        await as_worker.dispose()


async def nothing_ends(settings: Settings) -> None:
    as_worker = db.create_engine(settings, role=WORKER)
    async with as_worker.begin() as connection:
        assert await repository.ended(connection) is None
    await as_worker.dispose()
