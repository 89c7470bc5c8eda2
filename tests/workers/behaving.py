"""An actor that does what a test says, and how to run it."""

from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers import Delivery, Outcome, current, execute
from callboard_workers.testing import Workbench
from tests.workers.ledger.rows import make


class Refused(Exception):
    pass


do: dict[str, Any] = {}
"""What the actor does under `what`, and the `context` it saw."""


async def behave(x: int = 0) -> Any:
    do["context"] = current()
    if callable(what := do.get("what")):
        return await what()
    return what


OPTIONS: dict[str, Any] = {"name": "t.behave", "throws": Refused, "max_retries": 2, "grace": 0.05, "result": 60}


def raising(error: BaseException, *, fence: bool = False) -> Any:
    async def what() -> None:
        if fence:
            await current().fence()
        raise error

    return what


async def deliver(bench: Workbench, engine: AsyncEngine, **columns: Any) -> tuple[UUID, Outcome]:
    id = await make(engine, actor="t.behave", **columns)
    return id, await execute(bench.runtime, Delivery(id=id, actor="t.behave", durable=True))
