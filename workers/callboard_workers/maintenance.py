"""What a worker does beside its attempts: keep their leases, hear of cancellations, take its turn at sweeping."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

import structlog

from callboard_workers.context import Context
from callboard_workers.cron import timetable
from callboard_workers.ledger import Claim, Ledger
from callboard_workers.ledger.pruning import Pruner
from callboard_workers.ledger.sweeper import Depth
from callboard_workers.message import Message

log = structlog.stdlib.get_logger("callboard_workers.maintenance")

CANCELED = "canceled"
LOST = "lease lost"

HEAR_EVERY = 1.0
"""Seconds between two looks at what is to be canceled."""


class Process(Protocol):
    """The process whose attempts are looked after; `callboard_workers.runtime.Runtime` is one."""

    lease: float

    @property
    def ledger(self) -> Ledger: ...

    @property
    def publisher(self) -> Rings: ...

    def lost(self, message: Message) -> None: ...


class Rings(Protocol):
    """Hands doorbells to the broker."""

    def ring(self, messages: Sequence[Message]) -> None: ...


class Held:
    """A claim, the attempt it is for, and the task to cancel when it is lost."""

    __slots__ = ("claim", "context", "task")

    def __init__(self, claim: Claim, context: Context, task: asyncio.Task[object] | None) -> None:
        self.claim = claim
        self.context = context
        self.task = task

    def cancel(self, reason: str) -> None:
        """Stop the attempt, unless it has passed its fence or has ended: then it finishes, whatever its row says."""
        if self.stoppable and self.task is not None:
            self.context.cancel(reason)
            self.task.cancel()

    @property
    def stoppable(self) -> bool:
        """Whether it has neither ended, nor passed its fence, nor been stopped already."""
        return self.task is not None and not self.context.fenced and self.context.reason is None

    def ended(self) -> None:
        """The attempt has its outcome: from now on only its lease is kept."""
        self.task = None


class Keeper:
    """Renews every third of a lease; hears of cancellations each second; sweeps every `sweep_every` seconds, jittered.

    Errors are logged and retried.
    """

    def __init__(self, runtime: Process, *, sweep_every: float, depth: Depth | None, retention: float) -> None:
        self._runtime = runtime
        self._retention = retention
        self._pruner: Pruner | None = None
        self._sweep_every = sweep_every
        self._depth = depth
        self._held: dict[UUID, Held] = {}
        self._duties: list[asyncio.Task[None]] = []

    def running(self) -> dict[UUID, Context]:
        return {id: held.context for id, held in self._held.items()}

    @property
    def fenced(self) -> int:
        """Attempts past their fence; from any thread."""
        return sum(held.context.fenced for held in list(self._held.values()))

    def hold(self, claim: Claim, context: Context) -> Held:
        self._held[claim.id] = held = Held(claim, context, asyncio.current_task())
        return held

    def let_go(self, claim: Claim) -> None:
        held = self._held.get(claim.id)
        if held is not None and held.claim.epoch == claim.epoch:
            del self._held[claim.id]

    def start(self) -> None:
        self._duties = [
            asyncio.create_task(self._renew_forever(), name="renew leases"),
            asyncio.create_task(self._hear_forever(), name="hear of cancellations"),
            asyncio.create_task(self._sweep_forever(), name="sweep"),
        ]

    async def stop(self) -> None:
        for duty in self._duties:
            duty.cancel()
        if self._duties:
            await asyncio.wait(self._duties)
        self._duties = []

    async def renew(self) -> None:
        """Renew the leases of all that runs here, once; cancel what was lost, and what is to be canceled."""
        held = dict(self._held)
        renewals = await self._runtime.ledger.renew([each.claim for each in held.values()], self._runtime.lease)
        for id, renewal in renewals.items():
            if self._held.get(id) is held[id] and (not renewal.held or renewal.cancel):
                held[id].cancel(CANCELED if renewal.held else LOST)

    async def hear(self) -> None:
        """Cancel what somebody asked to cancel, among what runs for a while already; nothing else is asked about."""
        begun = time.monotonic() - HEAR_EVERY / 2
        held = {id: each for id, each in self._held.items() if each.stoppable and each.context.started < begun}
        for id in await self._runtime.ledger.canceled([each.claim for each in held.values()]):
            if self._held.get(id) is held[id]:
                held[id].cancel(CANCELED)

    async def fire(self) -> None:
        """Send what the calendar asks for; an error is logged, and does not keep the sweep."""
        try:
            if fired := await self._runtime.ledger.fire(timetable):
                self._runtime.publisher.ring(fired)
        except Exception as error:
            log.warning("cron_failed", error=repr(error))

    async def sweep(self) -> bool:
        """Sweep once; whether there is more to do at once."""
        await self.fire()
        swept = await self._runtime.ledger.sweep(self._runtime.publisher.ring, depth=self._depth)
        for message in swept.reclaimed:
            self._runtime.lost(message)
        await self.prune()
        counts = {name: len(found) for name in swept.__struct_fields__ if (found := getattr(swept, name))}
        if counts:
            log.info("ledger_swept", **counts)
        return swept.full

    async def prune(self) -> None:
        """One batch of letting go of what ended long ago; an error is logged, and does not keep the sweep."""
        if self._pruner is None:
            self._pruner = self._runtime.ledger.pruner(self._retention)
        try:
            pruned = await self._pruner.step()
        except Exception as error:
            log.warning("prune_failed", error=repr(error))
        else:
            if pruned.messages or pruned.results:
                log.info("ledger_pruned", messages=pruned.messages, results=pruned.results)

    async def _renew_forever(self) -> None:
        while True:
            await asyncio.sleep(self._runtime.lease / 3)
            try:
                await self.renew()
            except Exception as error:
                log.warning("renew_failed", error=repr(error), leases=len(self._held))

    async def _hear_forever(self) -> None:
        while True:
            await asyncio.sleep(HEAR_EVERY)
            try:
                await self.hear()
            except Exception as error:
                log.warning("cancellations_unheard", error=repr(error))

    async def _sweep_forever(self) -> None:
        pause = 0.0
        while True:
            await asyncio.sleep(pause * (0.75 + random.random() / 2))  # noqa: S311 (jitter)
            try:
                pause = 0.0 if await self.sweep() else self._sweep_every
            except Exception as error:
                log.warning("sweep_failed", error=repr(error))
                pause = min(10.0, max(self._sweep_every, pause * 2))
