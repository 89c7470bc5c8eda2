"""The ledger of one process: its verbs, with what is concurrent merged into batches."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import structlog

from callboard_workers.common.batcher import Batcher, poisoned
from callboard_workers.cron import Scheduled
from callboard_workers.errors import FenceUnheard, Overloaded
from callboard_workers.ledger import claims, cron, fences, leases, operations, progress, settles, sweeper
from callboard_workers.ledger.claims import Bell, Claim, Suspect, Take
from callboard_workers.ledger.database import unanswered
from callboard_workers.ledger.fences import Intent
from callboard_workers.ledger.json import storable
from callboard_workers.ledger.leases import Renewal
from callboard_workers.ledger.operations import Canceling
from callboard_workers.ledger.progress import Progress
from callboard_workers.ledger.pruning import Pruner
from callboard_workers.ledger.settles import Settlement, settlement
from callboard_workers.ledger.states import State
from callboard_workers.ledger.sweeper import Depth, Ring, Swept
from callboard_workers.message import Message
from callboard_workers.policy import Outcome

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

log = structlog.stdlib.get_logger("callboard_workers.ledger")

LONGEST_PAUSE = 2.0
"""Seconds at most between two tries to settle while Postgres does not answer."""


class Ledger:
    """Durable messages, from one event loop. Leases are seconds; every moment is by Postgres' clock.

    It has connections of its own, made as `engine` makes them and at most nine at once: an attempt that waits at its
    fence while it holds a session never waits for another attempt to give one back. `close` closes them.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        from sqlalchemy.engine import Engine  # noqa: PLC0415 - a worker without a database loads none
        from sqlalchemy.ext.asyncio import AsyncEngine  # noqa: PLC0415

        self._engine = engine = AsyncEngine(
            Engine(engine.sync_engine.pool.recreate(), engine.sync_engine.dialect, engine.sync_engine.url)
        )
        self._orphans: set[asyncio.Task[Any]] = set()
        self._claims: Batcher[Bell, Claim | Suspect | None] = Batcher(
            partial(claims.claim, engine), orphaned=self._give_back
        )
        self._fences: Batcher[Intent, None] = Batcher(partial(fences.fence, engine))
        self._settles: Batcher[Settlement, State | None] = Batcher(partial(settles.settle, engine))
        self._progress: Batcher[Progress, None] = Batcher(partial(progress.progress, engine), in_flight=1)

    async def insert(self, where: AsyncSession | AsyncConnection, messages: Sequence[Message]) -> set[UUID]:
        """Write messages in the caller's transaction; the ids that are new. Nothing is rung."""
        from callboard_workers.ledger import inserts  # noqa: PLC0415 - as above

        return await inserts.insert(where, messages)

    async def claim(self, id: UUID, worker: str, lease: float = 30.0) -> Claim | None:
        """Take the row that a doorbell names, a suspect too, for `lease` seconds; None if it is not to be had."""
        claim = await self._claims.submit(Bell(id, worker, lease, Take.ANY))
        return None if isinstance(claim, Suspect) else claim

    async def claim_unless_suspect(self, id: UUID, worker: str, lease: float = 30.0) -> Claim | Suspect | None:
        """As `claim`, but a suspect is only reported: it is claimed once nothing else runs in this process."""
        return await self._claims.submit(Bell(id, worker, lease))

    async def suspect(self, id: UUID) -> Suspect | None:
        """Look whether the row that a doorbell names is a suspect that is due; nothing is claimed."""
        found = await self._claims.submit(Bell(id, "", 0.0, Take.NOTHING))
        return found if isinstance(found, Suspect) else None

    async def fence(self, claim: Claim, detail: Mapping[str, Any] | None = None) -> None:
        """Announce intent, and store `detail` (JSON values) on the row in the same statement.

        Raises LeaseLost if the row is not ours any more or is to be canceled, FenceUnheard unanswered.
        """
        try:
            await self._fences.submit(Intent(claim, None if detail is None else storable(detail)))
        except Exception as error:
            if unanswered(error) or isinstance(error, Overloaded):
                raise FenceUnheard(f"message {claim.id}: the ledger did not answer: {error}") from error
            raise

    async def settle(
        self,
        claim: Claim,
        outcome: Outcome,
        *,
        fenced: bool = False,
        report: dict[str, Any] | None = None,
        keep: bool = False,
        keep_for: float | None = None,
    ) -> State | None:
        """Write down how the attempt ended, trying until Postgres answers; the row's state, None if it was not ours."""
        item = settlement(claim, outcome, fenced=fenced, report=report, keep=keep, keep_for=keep_for)
        return None if item is None else await self._settle(item)

    async def _settle(self, item: Settlement) -> State | None:
        pause = 0.05
        while True:
            try:
                return await self._settles.submit(item)
            except Exception as error:
                if poisoned(error) and (item.detail or item.result):
                    log.exception("settle_stripped", task_id=str(item.id))
                    item = msgspec.structs.replace(item, detail=None, result=None)
                    continue
                if not unanswered(error) and not isinstance(error, Overloaded):
                    raise
                log.warning("settle_delayed", task_id=str(item.id), error=repr(error))
            item = msgspec.structs.replace(item, again=True)
            await asyncio.sleep(pause * (0.5 + random.random()))  # noqa: S311 (jitter)
            pause = min(LONGEST_PAUSE, pause * 2)

    async def renew(self, held: Sequence[Claim], lease: float = 30.0) -> dict[UUID, Renewal]:
        """Push the leases of what runs; tells which are lost and which are to be canceled."""
        return await leases.renew(self._engine, held, lease)

    async def begin(self, claims: Sequence[Claim], together: int | None) -> None:
        """Note that suspects begin now, `together` of them and nothing beside them; see leases.begin."""
        await leases.begin(self._engine, claims, together)

    async def canceled(self, held: Sequence[Claim]) -> set[UUID]:
        """Which of what runs is to be canceled."""
        return await leases.canceled(self._engine, held)

    async def release(self, held: Sequence[Claim], *, only_canceled: bool = False) -> set[UUID]:
        """Give back what has not passed its fence, at no cost to its attempts; the ids that were ours to give."""
        return await leases.release(self._engine, held, only_canceled=only_canceled)

    async def progress(self, claim: Claim, done: int, total: int | None = None, note: str = "") -> None:
        """Note how far an attempt is, and what it is at."""
        await self._progress.submit(Progress(claim.id, claim.epoch, done, total, note))

    async def cancel(self, id: UUID, tenant_id: UUID | None = None) -> Canceling:
        """Cancel a message; see operators.cancel."""
        return await operations.cancel(self._engine, id, tenant_id)

    async def requeue(
        self, ids: Sequence[UUID], *, by: str, tenant_id: UUID | None = None, reason: str = ""
    ) -> set[UUID]:
        """Queue dead, held or uncertain messages again; see operators.requeue."""
        return await operations.requeue(self._engine, ids, by=by, tenant_id=tenant_id, reason=reason)

    async def resolve(
        self,
        where: AsyncSession | AsyncConnection,
        ids: Sequence[UUID],
        to: State,
        *,
        by: str,
        tenant_id: UUID | None = None,
        reason: str = "",
    ) -> set[UUID]:
        """Settle doubts, in the caller's transaction; see operators.resolve."""
        from sqlalchemy.ext.asyncio import AsyncSession  # noqa: PLC0415 - as above

        connection = await where.connection() if isinstance(where, AsyncSession) else where
        return await operations.resolve(connection, ids, to, by=by, tenant_id=tenant_id, reason=reason)

    async def sweep(self, ring: Ring, *, depth: Depth | None = None, doubt: float = sweeper.DOUBT) -> Swept:
        """Do the sweeper's duties once."""
        return await sweeper.sweep(self._engine, ring, depth=depth, doubt=doubt)

    async def admit(self, gates: Sequence[str]) -> list[Message]:
        """Let in what gates have room for; see sweeper.admit."""
        return await sweeper.admit(self._engine, gates)

    async def followers(self, parents: Collection[UUID]) -> list[Message]:
        """What the settling of these messages has put, to be rung for; see sweeper.followers."""
        return await sweeper.followers(self._engine, parents)

    async def fire(self, scheduled: Mapping[str, Scheduled], *, ahead: float = 0.0) -> list[Message]:
        """Insert what the calendar asks for, once per tick; what is new, to be rung for. See ticks.fire."""
        return await cron.fire(self._engine, scheduled, ahead=ahead)

    def pruner(self, retention: float) -> Pruner:
        """What lets go of messages that ended `retention` seconds ago."""
        return Pruner(self._engine, retention)

    async def close(self) -> None:
        """Answer what was handed in; take nothing more."""
        for batcher in (self._claims, self._progress, self._fences, self._settles):
            await batcher.close()
        if self._orphans:
            await asyncio.wait(self._orphans)
        await self._engine.dispose()

    def _give_back(self, claim: Claim | Suspect | None) -> None:
        """Release a claim whose attempt was cancelled meanwhile: it would not run until its lease lapsed."""
        if isinstance(claim, Claim):
            task = asyncio.get_running_loop().create_task(self._released(claim))
            self._orphans.add(task)
            task.add_done_callback(self._orphans.discard)

    async def _released(self, claim: Claim) -> None:
        try:
            await self.release([claim])
        except Exception as error:
            log.warning("release_failed", task_id=str(claim.id), error=repr(error))
