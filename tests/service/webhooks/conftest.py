"""A worker in the hand beside the API, over one database, which delivers to a scripted server on loopback."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.execution.attempt import execute
from callboard_workers.message import Delivery
from callboard_workers.policy import Outcome
from callboard_workers.runtime import Runtime
from callboard_workers.testing import workbench
from service.settings import Settings
from service.slices import import_actors
from tests.service.egress.scripted import Play, Scripted, reply, scripted

Sql = Callable[..., Awaitable[list[dict[str, Any]]]]


@pytest.fixture
def settings(database: str, redis_url: str) -> Settings:
    """Those of a test, and calls to this machine are allowed."""
    environ = {"DATABASE_URL": database, "REDIS_URL": redis_url, "SECRET_KEY": "a secret of tests only"}
    return Settings.from_env(environ | {"OUTBOUND_PRIVATE": "true"})


@pytest.fixture
def sql(engine: AsyncEngine) -> Sql:
    """Runs a statement and commits; its rows."""

    async def run(statement: str, **values: Any) -> list[dict[str, Any]]:
        async with engine.begin() as connection:
            found = await connection.execute(text(statement), values)
            return [dict(row) for row in found.mappings()] if found.returns_rows else []

    return run


@dataclass
class Desk:
    """The API, a worker in the hand, and the app's server."""

    api: httpx.AsyncClient
    runtime: Runtime
    server: Scripted
    sql: Sql

    async def endpoint(self, path: str = "/hook", **more: Any) -> dict[str, Any]:
        """Makes an endpoint on the app's server."""
        answer = await self.api.post("/v1/webhooks", json={"url": self.server.url(path), **more})
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def happen(self, status: str, count: int = 1, tenant: str = "tests", **more: Any) -> list[UUID]:
        """Stores mails and moves them all to a status at once, as settling a batch does."""
        made = await self.sql(
            "INSERT INTO emails (id, tenant_id, mode, message_id, sender, to_, recipients, subject, request_id)"
            " SELECT gen_random_uuid(), CASE :mode WHEN 'test' THEN t.test_id ELSE t.id END, :mode,"
            " '<m@example.org>', 'a@example.org', '{b@example.org}',"
            " '{b@example.org}', 'Hello', 'story-1' FROM tenants t, generate_series(1, :count) WHERE t.name = :tenant"
            " RETURNING id",
            count=count,
            tenant=tenant,
            mode=more.get("mode", "live"),
        )
        ids = [row["id"] for row in made]
        for each in ("sending", status):
            await self.sql("UPDATE emails SET status = :status WHERE id = ANY(:ids)", status=each, ids=ids)
        return ids

    async def waiting(self) -> list[UUID]:
        """The deliveries that wait, oldest first."""
        rows = await self.sql(
            "SELECT id FROM messages WHERE actor = 'webhooks.deliver' AND state = 'queued' ORDER BY id"
        )
        return [row["id"] for row in rows]

    async def work(self) -> list[Outcome]:
        """Runs one attempt of everything that waits, though its time has not come."""
        return [await self.attempt(id) for id in await self.waiting()]

    async def attempt(self, id: UUID) -> Outcome:
        """Answers the doorbell of a delivery that is due and that its gate has let in."""
        let_in = "SET admitted = true, due_at = clock_timestamp()"
        await self.sql(f"UPDATE messages {let_in} WHERE id = :id AND state = 'queued'", id=id)
        return await execute(self.runtime, Delivery(id=id, actor="webhooks.deliver", durable=True))

    async def deliveries(self, endpoint: dict[str, Any], **filters: str) -> list[dict[str, Any]]:
        answer = await self.api.get(f"/v1/webhooks/{endpoint['id']}/deliveries", params=filters)
        assert answer.status_code == 200, answer.text
        items: list[dict[str, Any]] = answer.json()["items"]
        return items

    async def look(self, endpoint: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = (await self.api.get(f"/v1/webhooks/{endpoint['id']}")).json()
        return found


OpenDesk = Callable[..., Any]


@pytest.fixture
def open_desk(api: httpx.AsyncClient, engine: AsyncEngine, settings: Settings, sql: Sql) -> OpenDesk:
    """`async with open_desk(reply(200)) as desk`."""
    import_actors()

    @asynccontextmanager
    async def make(*script: Play) -> AsyncIterator[Desk]:
        async with scripted(*(script or (reply(200),))) as server, workbench(engine) as bench:
            bench.runtime.state["settings"] = settings
            yield Desk(api, bench.runtime, server, sql)

    return make
