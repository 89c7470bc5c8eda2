"""A worker in the hand beside the API, over one database; and an audience that is loaded with one statement."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
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
from service.notifications.models import ACTOR
from service.settings import Settings
from service.slices import import_actors

Sql = Callable[..., Awaitable[list[dict[str, Any]]]]


class Desk:
    """An app that notifies, and the worker that delivers."""

    def __init__(self, api: httpx.AsyncClient, runtime: Runtime) -> None:
        self.api, self.runtime = api, runtime

    async def notify(self, type: str = "test.happened", **more: Any) -> dict[str, Any]:
        """Accept a notification."""
        answer = await self.api.post("/v1/notifications", json={"type": type, **more})
        assert answer.status_code == 202, answer.text
        told: dict[str, Any] = answer.json()
        assert answer.headers["Location"] == f"/v1/notifications/{told['id']}"
        return told

    async def work(self, told: dict[str, Any]) -> Outcome:
        """Answer its doorbell."""
        return await execute(self.runtime, Delivery(id=UUID(told["task_id"]), actor=ACTOR, durable=True))

    async def read(self, told: dict[str, Any]) -> dict[str, Any]:
        """Look at it."""
        answer = await self.api.get(f"/v1/notifications/{told['id']}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def deliver(self, type: str = "test.happened", **more: Any) -> dict[str, Any]:
        """Accept a notification, deliver it, look at it."""
        told = await self.notify(type, **more)
        await self.work(told)
        return await self.read(told)

    async def follow(self, topic: str, *users: str) -> None:
        """Have users follow a topic."""
        answer = await self.api.post(f"/v1/topics/{topic}/followers", json={"users": list(users)})
        assert answer.status_code == 200, answer.text

    async def prefer(self, user: str, **categories: dict[str, str]) -> None:
        """Set a user's preferences; `any` is `*`."""
        wanted = {"*" if name == "any" else name: channels for name, channels in categories.items()}
        answer = await self.api.put(f"/v1/users/{user}/preferences", json={"categories": wanted})
        assert answer.status_code == 200, answer.text


@asynccontextmanager
async def desk_of(api: httpx.AsyncClient, engine: AsyncEngine, **environ: str) -> AsyncIterator[Desk]:
    """A desk whose worker runs with these settings."""
    import_actors()
    async with workbench(engine) as found:
        found.runtime.state["settings"] = Settings.from_env(environ)
        yield Desk(api, found.runtime)


@pytest.fixture
async def desk(api: httpx.AsyncClient, engine: AsyncEngine, redis_url: str) -> AsyncIterator[Desk]:
    """A desk with default settings."""
    async with desk_of(api, engine, REDIS_URL=redis_url) as found:
        yield found


@pytest.fixture
def sql(engine: AsyncEngine) -> Sql:
    """Runs a statement and commits; its rows."""

    async def run(statement: str, **values: Any) -> list[dict[str, Any]]:
        async with engine.begin() as connection:
            found = await connection.execute(text(statement), values)
            return [dict(row) for row in found.mappings()] if found.returns_rows else []

    return run
