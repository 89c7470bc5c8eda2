"""One attempt, as one straight pipeline: claim, run inside the onion, settle."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from callboard_workers.actors.actor import Actor, registry
from callboard_workers.actors.dependencies import provide
from callboard_workers.common.threads import in_thread
from callboard_workers.context import Context
from callboard_workers.errors import FenceUnheard, UnknownActor, WorkerStopping
from callboard_workers.execution.completion import ClaimedEnding, End, Ending, Holder, ordered
from callboard_workers.ledger import Claim
from callboard_workers.ledger.claims import Suspect
from callboard_workers.ledger.database import unanswered
from callboard_workers.message import Delivery
from callboard_workers.metrics import IGNORED
from callboard_workers.policy import Done, Ignored, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from callboard_workers.crash_isolation import Place
    from callboard_workers.runtime import Runtime

log = structlog.stdlib.get_logger("callboard_workers.execution.attempt")

T = TypeVar("T")


class LeftBehind(Exception):
    """An attempt was written off and ended by somebody else; what its task does now counts for nothing."""


async def execute(runtime: Runtime, delivery: Delivery, raised: list[BaseException] | None = None) -> Outcome:
    """Run one delivery to its outcome; a durable one is settled when this returns.

    Ignored: there was nothing to do (forget it). Raises UnknownActor if no actor here has its name; of a message
    without a row the outcome is the caller's to carry out. Cancelled from outside (a stopping worker), it gives a
    durable message back at no cost, or puts it in doubt if its fence is passed, and raises CancelledError.
    `raised` is given the exception that the outcome stands for.
    """
    waiting = _Waiting()
    task = asyncio.ensure_future(perform(runtime, delivery, waiting))
    try:
        await waiting.for_end(task)
    except asyncio.CancelledError:
        if waiting.context is not None:
            waiting.context.cancel()
        task.cancel()
        while not waiting.over(task):
            with contextlib.suppress(asyncio.CancelledError):
                await waiting.for_end(task)
        if task.done() and not task.cancelled() and task.exception() is None:
            return task.result()
        raise
    else:
        return waiting.outcome(task)
    finally:
        if waiting.context is not None:
            if raised is not None and waiting.context.error is not None:
                raised.append(waiting.context.error)
            waiting.context.release_error()


async def perform(runtime: Runtime, delivery: Delivery, holder: Holder) -> Outcome:
    """As `execute`, in the current task alone; LeftBehind when the attempt was ended without it, and `holder` told."""
    actor = registry.get(delivery.actor)
    if delivery.durable:
        return await _durable(runtime, delivery, holder)
    isolation = runtime.isolation
    await isolation.enter()
    try:
        context = _direct_context(actor, delivery)
        ending = Ending(runtime, context, holder)
        return await ending.conclude(await _run(runtime, context, delivery.args, delivery.kwargs))
    finally:
        isolation.leave()


async def _durable(runtime: Runtime, delivery: Delivery, holder: Holder) -> Outcome:
    """Claim and run a row beside other work; a suspect when it is its turn to have the process."""
    isolation, ledger = runtime.isolation, runtime.ledger
    found = await _asked(delivery, ledger.suspect(delivery.id)) if isolation.closed else None
    if not isinstance(found, Suspect):
        await isolation.enter()
        try:
            taken = await _asked(delivery, ledger.claim_unless_suspect(delivery.id, runtime.worker_id, runtime.lease))
            if not isinstance(taken, Suspect):
                return await _claimed(runtime, delivery, holder, taken)
            found = taken
        finally:
            isolation.leave()
    async with isolation.place(found) as place:
        claim = await _asked(delivery, ledger.claim(delivery.id, runtime.worker_id, runtime.lease))
        return await _claimed(runtime, delivery, holder, claim, place)


async def _asked(delivery: Delivery, answer: Awaitable[T]) -> T | Ignored:
    """What the ledger says of a doorbell's row; Ignored when it does not answer."""
    try:
        return await answer
    except Exception as error:
        if not unanswered(error):
            raise
        log.warning("claim_failed", task_id=str(delivery.id), task_name=delivery.actor, error=repr(error))
        return Ignored(reason="the ledger did not answer; the sweeper rings again")


async def _claimed(
    runtime: Runtime, delivery: Delivery, holder: Holder, claim: Claim | Ignored | None, place: Place | None = None
) -> Outcome:
    if isinstance(claim, Ignored):
        return claim
    if claim is None:
        IGNORED.labels(delivery.actor, delivery.queue).inc()
        log.debug("doorbell_ignored", task_id=str(delivery.id), task_name=delivery.actor)
        return Ignored(reason="taken, ended, not due, or never was")
    try:
        actor = registry.get(claim.actor)
    except UnknownActor:
        await runtime.ledger.release([claim])
        raise
    context = _durable_context(runtime, actor, claim, delivery)
    with runtime.holding(claim, context) as held:
        ending = ClaimedEnding(runtime, context, holder, claim, held)
        try:
            begin = None if place is None else place.begin(claim)
            outcome = await _run(runtime, context, claim.args, claim.kwargs, begin)
        except asyncio.CancelledError:
            await ending.abandon()
            raise
        except FenceUnheard as error:  # the actor's own is an outcome by now
            await ending.abandon()
            return Ignored(reason=str(error))
        return await ending.conclude(outcome)


async def _run(
    runtime: Runtime, context: Context, args: Any, kwargs: Any, begin: Awaitable[None] | None = None
) -> Outcome:
    """The onion around the actor, after `begin`; a cancellation that the runtime ordered becomes an outcome."""
    context.arguments = args, kwargs
    try:
        if begin is not None:
            await begin
        outcome = await runtime.onion(_call)(context)
    except asyncio.CancelledError:
        if context.written_off:
            raise LeftBehind from None
        found = ordered(context)
        if found is None:
            raise
        if (task := asyncio.current_task()) is not None:
            task.uncancel()
        return found
    if context.written_off:
        raise LeftBehind
    return outcome


class _Waiting:
    """Whoever awaits an attempt that runs in a task of its own."""

    def __init__(self) -> None:
        self.context: Context | None = None
        self._left: asyncio.Future[End] = asyncio.get_running_loop().create_future()

    def left_behind(self, end: End) -> None:
        if not self._left.done():
            self._left.set_result(end)

    def over(self, task: asyncio.Future[Outcome]) -> bool:
        return task.done() or self._left.done()

    async def for_end(self, task: asyncio.Future[Outcome]) -> None:
        either: set[asyncio.Future[Any]] = {task, self._left}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)

    def outcome(self, task: asyncio.Future[Outcome]) -> Outcome:
        if not self._left.done():
            return task.result()
        end = self._left.result()
        if isinstance(end, BaseException):
            raise end
        return end


async def _call(runtime: Runtime, context: Context) -> Outcome:
    actor: Actor[..., Any] = context.actor
    typed_args, typed_kwargs = actor.parameters.decode(*context.arguments)
    if not actor.needs and actor.is_async:
        return Done(result=await actor.fn(*typed_args, **typed_kwargs), detail=context.detail or None)
    async with AsyncExitStack() as stack:
        if actor.is_async:
            opened = await provide(actor.needs, stack)
            result = await actor.fn(*typed_args, **typed_kwargs, **opened)
        else:
            thread = await stack.enter_async_context(runtime.threads.reserved(context))
            opened = await provide(actor.needs, stack)  # not earlier: who waits for a thread holds no connection
            result = await in_thread(thread, context, actor.fn, *typed_args, **typed_kwargs, **opened)
    return Done(result=result, detail=context.detail or None)


class Row:
    """The marks of a durable message: its row."""

    __slots__ = ("_claim", "_runtime")

    def __init__(self, runtime: Runtime, claim: Claim) -> None:
        self._runtime = runtime
        self._claim = claim

    async def fence(self, detail: Mapping[str, Any] | None = None) -> None:
        if self._runtime.stopping:
            raise WorkerStopping(f"message {self._claim.id}: the worker stops and begins nothing that may end in doubt")
        await self._runtime.ledger.fence(self._claim, detail)

    async def progress(self, done: int, total: int | None, note: str) -> None:
        await self._runtime.ledger.progress(self._claim, done, total, note)


def _durable_context(runtime: Runtime, actor: Actor[..., Any], claim: Claim, delivery: Delivery) -> Context:
    return Context(
        id=claim.id,
        actor=actor,
        queue=claim.queue,
        priority=claim.priority,
        attempt=claim.attempts + 1,
        crashes=claim.crashes,
        snoozes=claim.snoozes,
        epoch=claim.epoch,
        durable=True,
        redelivered=claim.deaths > 0,
        headers=claim.headers,
        waited=claim.waited,
        marks=Row(runtime, claim),
    )


def _direct_context(actor: Actor[..., Any], delivery: Delivery) -> Context:
    return Context(
        id=delivery.id,
        actor=actor,
        queue=delivery.queue,
        priority=delivery.priority,
        attempt=delivery.retries + 1,
        crashes=_count(delivery.headers.get("crashes")),
        snoozes=_count(delivery.headers.get("snoozes")),
        redelivered=delivery.redelivered,
        headers=delivery.headers,
        expires_at=delivery.expires_at,
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
