"""A worker in the hand: it runs when a test says so, and time passes when a test says so."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Sequence
from typing import Any, ParamSpec
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.actors.actor import Actor, registry
from callboard_workers.cron import Scheduled, timetable
from callboard_workers.errors import WorkersError
from callboard_workers.execution.attempt import execute
from callboard_workers.ledger import State, Swept
from callboard_workers.ledger.database import fetch
from callboard_workers.ledger.inserts import rung
from callboard_workers.message import Delivery, Message
from callboard_workers.middleware import Middleware, defaults
from callboard_workers.policy import DeadLetter, Outcome, RetryAt, Snoozed, Unknown
from callboard_workers.runtime import Runtime
from callboard_workers.testing import passing
from callboard_workers.testing.broker import MemoryBroker, delivery
from callboard_workers.testing.clock import Clock, OnTheClock
from callboard_workers.testing.crashes import Crashed, Deaths, Died, Point

P = ParamSpec("P")

Ran = list[tuple[UUID, Outcome | Crashed]]
"""Ids and outcomes of attempts, in order."""

LIMIT = 1_000
"""Attempts, or moments, after which a test is told that this has no end."""


class _Runtime(Runtime):
    """Remembers what was committed, also what is put off and rung for only when it is due."""

    committed: list[Message]

    def ring(self, messages: Sequence[Message]) -> None:
        self.committed.extend(messages)
        super().ring(messages)


class Workbench:
    """A worker, a broker in memory and a clock; `outcomes` is all that ever ran. Messages run one after the other."""

    def __init__(self, runtime: _Runtime, broker: MemoryBroker, deaths: Deaths) -> None:
        self.runtime: Runtime = runtime
        self._committed = runtime.committed
        self.broker = broker
        self.clock: Clock = broker.clock
        self.outcomes: Ran = []
        self._deaths = deaths
        self._scheduled: set[str] = set()
        self._results: dict[UUID, dt.datetime] = {}

    async def run(self, message: Message) -> Outcome:
        """Run one attempt of a message as if it had just arrived."""
        return await execute(self.runtime, delivery(message))

    async def drain(self, *, limit: int = LIMIT) -> Ran:
        """Run all that is due and whatever that sends; ids and outcomes in order. WorkersError after `limit` attempts.

        What is put off, to be retried later, or for the sweeper to find, stays so until time passes: see `advance`
        and `finish`.
        """
        ran: Ran = []
        while (arrived := await self._take()) is not None:
            if len(ran) >= limit:
                raise WorkersError(f"still not empty after {limit} attempts: does a message send itself?")
            ran.append((arrived.id, await self._attempt(arrived)))
        self.outcomes.extend(ran)
        return ran

    async def advance(self, seconds: float | dt.timedelta, *, limit: int = LIMIT) -> Ran:
        """Let time pass, and run what becomes due in it, at its moment, in order; what ran.

        Delays, retries, expiry, leases of workers that died, limits, debounce and crons keep this time, whether a
        message has a row or not. Commit first: rows that are not committed do not grow older. WorkersError after
        `limit` moments.
        """
        left = seconds.total_seconds() if isinstance(seconds, dt.timedelta) else float(seconds)
        if left < 0:
            raise ValueError(f"time does not go back by {-left:g} s")
        ran = await self._quiet(limit)
        for _ in range(limit):
            step = await self._next(bells=True, crons=True)
            if step is None or step > left:
                return ran + await self._pass(left, limit)
            ran += await self._pass(step, limit)
            left -= step
        raise WorkersError(f"{limit} moments passed and {left:g} s are left: advance less, or give a higher `limit`")

    async def finish(self, *, limit: int = LIMIT) -> Ran:
        """Let time pass until nothing is to come but ticks of crons; what ran. WorkersError after `limit` moments."""
        ran = await self._quiet(limit)
        for _ in range(limit):
            step = await self._next(bells=False, crons=False)
            late = await self._quiet(limit) if step is None else []  # due since the last look, by the machine's clock
            if step is None and not late:
                return ran
            ran += late if step is None else await self._pass(step, limit)
        raise WorkersError(f"still not finished after {limit} moments: does a message put itself off for ever?")

    def schedule(self, *actors: Actor[..., Any]) -> None:
        """Let the crons of these actors fire as time passes; no other does, whatever is registered."""
        self._scheduled.update(actor.name for actor in actors)

    def crash(self, at: Point, *, actor: Actor[..., Any] | None = None, times: int = 1) -> None:
        """Let the worker of the next `times` attempts (of `actor`) die at this point, as by kill -9.

        Nothing is settled then. A row is taken back when its lease has lapsed (`advance`), a message without one is
        delivered again. The first death of a row makes it a suspect, which runs alone; each later one is a crash, and
        so is each of a message without a row; both are given up after `max_crashes`.
        """
        self._deaths.plan(at, actor=None if actor is None else actor.name, times=times)

    async def sweep(self) -> Swept:
        """Do the sweeper's duties once, crons apart."""
        swept = await self.runtime.ledger.sweep(self.broker.ring)
        for message in swept.reclaimed:
            self.runtime.lost(message)
        return swept

    async def state(self, message: Message | UUID) -> State:
        """How a durable message stands; WorkersError if there is no such row."""
        id = message.id if isinstance(message, Message) else message
        found = await fetch(self._engine, "SELECT state FROM messages WHERE id = $1", id)
        if not found:
            raise WorkersError(f"the ledger has no message {id}: was its transaction committed?")
        return State(found[0]["state"])

    def sent(self, actor: Actor[..., Any]) -> list[Message]:
        """The messages of this actor that were sent, or enqueued and committed; those with a row first."""
        found: dict[UUID, Message] = {}
        for message in (*self._committed, *self.broker.published, *self.broker.rung):
            if message.actor == actor.name:
                found.setdefault(message.id, message)
        return list(found.values())

    def assert_sent(self, actor: Actor[P, Any], *args: P.args, **kwargs: P.kwargs) -> Message:
        """The message this call would be was sent; which one it was. AssertionError names those that were instead."""
        wanted = actor.message(*args, **kwargs)
        calls = [message for message in self.sent(actor) if _call(message) == _call(wanted)]
        assert calls, f"{actor.name}{_call(wanted)} was not sent; sent: {[_call(each) for each in self.sent(actor)]}"  # noqa: S101
        return calls[0]

    def assert_not_sent(self, actor: Actor[..., Any]) -> None:
        """Nothing was sent to this actor. AssertionError names what was."""
        calls = [_call(each) for each in self.sent(actor)]
        assert not calls, f"{actor.name} was sent {calls}"  # noqa: S101

    @property
    def _engine(self) -> AsyncEngine:
        if self.runtime.engine is None:
            raise WorkersError("this workbench has no rows: make it with an engine, as in workbench(engine)")
        return self.runtime.engine

    async def _take(self) -> Delivery | None:
        """What is due, once everything that goes on in the background has been done."""
        if not self.broker.waiting:
            await rung()
            await self.runtime.idle()
        return self.broker.take()

    async def _attempt(self, arrived: Delivery) -> Outcome | Crashed:
        try:
            self._deaths.reach("before claim", arrived.actor)
            outcome = await execute(self.runtime, arrived)
            self._deaths.reach("after settle", arrived.actor)
        except Died as died:
            self._redeliver(arrived)
            return Crashed(at=str(died), reason=f"its worker died: {died}")
        if not arrived.durable:
            self._conclude(arrived, outcome)
        return outcome

    def _conclude(self, arrived: Delivery, outcome: Outcome) -> None:
        """A message without a row has nobody else to carry its outcome out."""
        if isinstance(outcome, RetryAt | Snoozed):
            snoozes = int(arrived.headers.get("snoozes") or 0) + isinstance(outcome, Snoozed)
            following = msgspec.structs.replace(
                arrived,
                retries=arrived.retries + isinstance(outcome, RetryAt),
                headers={**arrived.headers, "snoozes": snoozes},
                expires_at=None if arrived.expires_at is None else self._virtual(arrived.expires_at),
            )
            self.broker.put(following, delay=outcome.delay)
        elif isinstance(outcome, DeadLetter | Unknown):
            self.broker.dead.append((arrived, outcome.reason))

    def _redeliver(self, arrived: Delivery) -> None:
        """As the watchdog of another worker does when a dead one's lease has lapsed."""
        crashes = int(arrived.headers.get("crashes") or 0) + 1
        if not arrived.durable:
            self.runtime.lost(Message(id=arrived.id, actor=arrived.actor, queue=arrived.queue, headers=arrived.headers))
        if not arrived.durable and crashes >= registry.get(arrived.actor).policy.max_crashes:
            self.broker.dead.append((arrived, f"its worker died {crashes} times while it ran"))
            return
        headers = arrived.headers if arrived.durable else {**arrived.headers, "crashes": crashes}
        expires = None if arrived.expires_at is None else self._virtual(arrived.expires_at)
        again = msgspec.structs.replace(arrived, headers=headers, redelivered=True, expires_at=expires)
        self.broker.put(again, delay=self.runtime.lease)

    def _virtual(self, moment: dt.datetime) -> dt.datetime:
        return moment + dt.timedelta(seconds=self.clock.ahead)

    async def _next(self, *, bells: bool, crons: bool) -> float | None:
        found = [self.broker.next()]
        if self.runtime.engine is not None:
            found.append(await passing.upcoming(self.runtime.engine, bells=bells))
            if crons:
                found.append(_tick(self._timetable(), self.clock.now()))
        return min((seconds for seconds in found if seconds is not None), default=None)

    async def _pass(self, seconds: float, limit: int) -> Ran:
        """Let so much time pass at once, and do what is due then."""
        engine = self.runtime.engine
        if engine is not None:
            await self._fire()  # a cron that nobody has met yet is met before time passes
            await self._note_results(engine)
            await passing.age(engine, seconds)
        self.clock.ahead += seconds
        if engine is not None:
            await self._forget_results(engine)
            await self._fire()
        return await self._quiet(limit)

    async def _quiet(self, limit: int) -> Ran:
        """Sweep and run until neither finds anything more to do."""
        if self.runtime.engine is None:
            return await self.drain(limit=limit)
        ran: Ran = []
        while True:
            swept = await self.sweep()
            more = await self.drain(limit=limit)
            ran += more
            if not more and not swept.full:
                return ran

    async def _fire(self) -> None:
        if scheduled := self._timetable():
            self.broker.ring(await self.runtime.ledger.fire(scheduled, ahead=self.clock.ahead))

    def _timetable(self) -> dict[str, Scheduled]:
        return {name: entry for name, entry in timetable.items() if name in self._scheduled}

    async def _note_results(self, engine: AsyncEngine) -> None:
        now = self.clock.now()
        for row in await fetch(engine, passing.RESULTS):
            self._results.setdefault(row["id"], now + dt.timedelta(seconds=row["seconds"]))

    async def _forget_results(self, engine: AsyncEngine) -> None:
        over = [id for id, moment in self._results.items() if moment <= self.clock.now()]
        if over:
            await fetch(engine, passing.FORGET, over)


async def run_now(actor: Actor[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Outcome:
    """One attempt of this call as a worker makes it (arguments through JSON, dependencies, middleware, policy).

    There is no row and no broker; the outcome is returned, the actor's exceptions are its outcome. A runtime that is
    started on this loop is used, so that dependencies find what they need; else one is made for the call.
    """
    message = actor.message(*args, **kwargs)
    try:
        runtime = Runtime.of_loop()
    except WorkersError:
        async with workbench() as bench:
            return await bench.run(message)
    return await execute(runtime, delivery(message))


@contextlib.asynccontextmanager
async def workbench(
    engine: AsyncEngine | None = None,
    *,
    middleware: Sequence[Middleware] | None = None,
    **options: Any,
) -> AsyncIterator[Workbench]:
    """A runtime on this loop with a broker in memory; `options` are Runtime's. With an engine it has the ledger."""
    deaths, broker = Deaths(), MemoryBroker()
    layers = [deaths, *(defaults() if middleware is None else middleware), OnTheClock(broker.clock)]
    runtime = _Runtime(engine, broker, middleware=layers, **options)
    runtime.committed = []
    await runtime.start()
    try:
        yield Workbench(runtime, broker, deaths)
    finally:
        await runtime.stop()


def _tick(scheduled: dict[str, Scheduled], now: dt.datetime) -> float | None:
    """Seconds until a cron fires."""
    ticks = (next(entry.cron.ticks(now), None) for entry in scheduled.values())
    return min(((tick - now).total_seconds() for tick in ticks if tick is not None), default=None)


def _call(message: Message) -> tuple[Any, ...]:
    return (*message.args, *(f"{name}={value!r}" for name, value in sorted(message.kwargs.items())))
