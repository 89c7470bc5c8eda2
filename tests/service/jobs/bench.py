"""A worker in the hand, for the tests of what it does with jobs."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.execution.attempt import execute
from callboard_workers.message import Delivery
from callboard_workers.policy import Outcome
from callboard_workers.runtime import Runtime

REQUEST: dict[str, Any] = {
    "type": "activities.generate",
    "input": {"team_size": 8, "topic": "billing", "setting": "remote"},
    "organization_id": "acme",
}


class Bench:
    """Runs attempts of stored jobs, one at a time."""

    def __init__(self, engine: AsyncEngine, runtime: Runtime) -> None:
        self.engine, self.runtime = engine, runtime

    async def work(self, task_id: str) -> Outcome:
        """Answer the doorbell of a job once, at the time it is due."""
        async with self.engine.begin() as connection:
            due = "UPDATE messages SET due_at = clock_timestamp() WHERE id = :id AND state = 'queued'"
            await connection.execute(text(due), {"id": UUID(task_id)})
        return await execute(self.runtime, Delivery(id=UUID(task_id), actor="activities.generate", durable=True))


MakeBench = Callable[..., AbstractAsyncContextManager[Bench]]
