"""Revoking: `celery control revoke|terminate ID` ends a message for good, with a row or without."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog

from callboard_workers.ledger.operations import Canceling

if TYPE_CHECKING:
    from collections.abc import Iterable

    from callboard_workers.celery.pool import Pool

log = structlog.get_logger(__name__)

TRIES = 20
"""How often Postgres is asked, a pause of at most PAUSE seconds between."""
PAUSE = 5.0


class Revoker:
    """Carries out what remote control was told. A durable message is canceled in its row by whoever hears of it first.

    Without its row's word the sweeper would ring for it again, and another worker would run it.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._errands: set[asyncio.Task[Any]] = set()

    def revoke(self, task_ids: Iterable[str], *, terminate: bool) -> None:
        """Any thread; `terminate` stops what runs here as well. What runs with a row stops within seconds anyway."""
        self._pool.thread.call_soon(self._begin, tuple(task_ids), terminate)

    def _begin(self, task_ids: tuple[str, ...], terminate: bool) -> None:
        errand = asyncio.get_running_loop().create_task(self._revoke(task_ids, terminate), name="revoke")
        self._errands.add(errand)
        errand.add_done_callback(self._errands.discard)

    async def _revoke(self, task_ids: tuple[str, ...], terminate: bool) -> None:
        for task_id in task_ids:
            canceling = await self._cancel_row(task_id)
            if canceling is Canceling.REFUSED:
                log.info("revoke_refused", task_id=task_id, hint="it has ended, or is past its point of no return")
            elif terminate and self._pool.front is not None:
                self._pool.front.desk.attempts.stop(task_id)

    async def _cancel_row(self, task_id: str) -> Canceling:
        runtime = self._pool.runtime
        if runtime is None or runtime.engine is None or (id := _uuid(task_id)) is None:
            return Canceling.UNKNOWN
        pause = 0.1
        for _ in range(TRIES):
            try:
                return await runtime.ledger.cancel(id)
            except Exception as error:
                log.warning("revoke_delayed", task_id=task_id, error=repr(error))
            await asyncio.sleep(pause)
            pause = min(PAUSE, pause * 2)
        log.error("revoke_failed", task_id=task_id, hint="revoke it again when Postgres answers")
        return Canceling.REFUSED


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
