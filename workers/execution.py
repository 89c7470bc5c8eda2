"""One attempt, as one straight pipeline: claim, run inside the onion, settle."""

from __future__ import annotations

import asyncio
import datetime as dt
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import structlog

from workers.actor import Actor, registry
from workers.context import Context, correlation
from workers.dependencies import provide
from workers.errors import UnknownActor
from workers.extras import Extras
from workers.keeper import CANCELED
from workers.ledger import Claim, State
from workers.ledger.statement import unanswered
from workers.message import Gate, Message, Priority
from workers.middleware.metrics import IGNORED
from workers.policy import Canceled, DeadLetter, Done, Ignored, Outcome, Unknown
from workers.threads import in_thread

if TYPE_CHECKING:
    from workers.runtime import Runtime

log = structlog.stdlib.get_logger("workers.execution")


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """What arrived: a doorbell (`durable`, no arguments) or a message with its arguments.

    `retries`: errors so far of a message without a row; `redelivered`: its last worker died.
    """

    id: UUID
    actor: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    headers: dict[str, Any] = {}
    durable: bool = False
    retries: int = 0
    redelivered: bool = False
    queue: str = "default"
    expires_at: dt.datetime | None = None


async def execute(runtime: Runtime, delivery: Delivery) -> Outcome:
    """Run one delivery to its outcome; a durable one is settled when this returns.

    Ignored: there was nothing to do (forget it). Raises UnknownActor if no actor here has its name; of a message
    without a row the outcome is the caller's to carry out. Cancelled from outside (a stopping worker), it gives a
    durable message back at no cost, or puts it in doubt if its fence is passed, and raises CancelledError.
    """
    actor = registry.get(delivery.actor)
    if delivery.durable:
        return await _durable(runtime, delivery)
    context = _direct_context(actor, delivery)
    outcome = await _run(runtime, context, delivery.args, delivery.kwargs)
    if actor.extras is not None:
        await _follow(runtime, actor.extras, context, outcome)
    runtime.concluded(context, outcome)
    return outcome


async def _durable(runtime: Runtime, delivery: Delivery) -> Outcome:
    try:
        claim = await runtime.ledger.claim(delivery.id, runtime.worker_id, runtime.lease)
    except Exception as error:
        if not unanswered(error):
            raise
        log.warning("claim_failed", task_id=str(delivery.id), task_name=delivery.actor, error=repr(error))
        return Ignored(reason="the ledger did not answer; the sweeper rings again")
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
        try:
            outcome = await _run(runtime, context, claim.args, claim.kwargs)
            held.ended()
        except asyncio.CancelledError:
            held.ended()
            await runtime.to_the_end(_abandon(runtime, claim, context))
            raise
        outcome = await runtime.to_the_end(_settle(runtime, claim, context, outcome))
    runtime.concluded(context, outcome)
    return outcome


async def _run(runtime: Runtime, context: Context, args: Any, kwargs: Any) -> Outcome:
    """The onion around the actor; a cancellation that the runtime ordered becomes an outcome."""
    context.arguments = args, kwargs
    try:
        return await runtime.onion(_call)(context)
    except asyncio.CancelledError:
        outcome = _ordered(context)
        if outcome is None:
            raise
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
        return outcome


def _ordered(context: Context) -> Outcome | None:
    if context.reason is None or context.fenced:
        return None
    return Canceled(reason=context.reason) if context.reason == CANCELED else Ignored(reason=context.reason)


async def _call(runtime: Runtime, context: Context) -> Outcome:
    actor: Actor[..., Any] = context.actor
    typed_args, typed_kwargs = actor.parameters.decode(*context.arguments)
    if not actor.needs and actor.is_async:
        return Done(result=await actor.fn(*typed_args, **typed_kwargs), detail=context.detail or None)
    async with AsyncExitStack() as stack:
        opened = await provide(actor.needs, stack)
        if actor.is_async:
            result = await actor.fn(*typed_args, **typed_kwargs, **opened)
        else:
            result = await in_thread(runtime.threads, context, actor.fn, *typed_args, **typed_kwargs, **opened)
    return Done(result=result, detail=context.detail or None)


async def _settle(runtime: Runtime, claim: Claim, context: Context, outcome: Outcome) -> Outcome:
    if isinstance(outcome, Ignored):
        return await _stopped(runtime, claim, context, outcome)
    keep_for, follow = context.actor.policy.result, claim.follow
    state = await runtime.ledger.settle(
        claim,
        outcome,
        fenced=context.fenced,
        report=context.detail,
        keep=keep_for is not None or follow is not None,
        keep_for=None if follow is not None and "group" in follow else keep_for,
    )
    if claim.follow is not None or claim.gate is not None:
        _wake(runtime, claim, state)
    if state is None:
        return Ignored(reason="the message was taken from this attempt before it could settle", error=outcome.error)
    return Canceled(reason=CANCELED) if state == "canceled" else outcome


def _wake(runtime: Runtime, claim: Claim, state: State | None) -> None:
    """Ring for what the settling has put, and let in what waited for this one to end; the sweeper would do it too."""
    if claim.gate is not None:
        runtime.admit_soon([claim.gate])
    if state is State.DONE and claim.follow is not None:
        specs = [each for each in claim.follow.get("success", ()) if not {"delay", "due_at"} & each.keys()]
        runtime.ring([_put(each) for each in specs])


def _put(spec: dict[str, Any]) -> Message:
    return Message(
        id=UUID(spec["id"]),
        actor=spec["actor"],
        queue=spec["queue"],
        priority=Priority.of(spec["priority"]),
        gate=Gate(name=spec["gate"]) if "gate" in spec else None,
    )


async def _follow(runtime: Runtime, extras: Extras, context: Context, outcome: Outcome) -> None:
    """What follows a message without a row is sent before it is acknowledged: at least once, as it was itself."""
    if isinstance(outcome, Done) and (following := extras.on_success) is not None:
        args: tuple[Any, ...] = (outcome.result,) if following.parameters.takes(None) else ()
    elif isinstance(outcome, DeadLetter) and (following := extras.on_dead) is not None:
        args = (context.id, {**(outcome.error or {}), "reason": outcome.reason})
    else:
        return
    here = correlation.set(context.correlation())
    try:
        await following.send(*args)
    finally:
        correlation.reset(here)


async def _stopped(runtime: Runtime, claim: Claim, context: Context, outcome: Ignored) -> Outcome:
    """The row was lost, or is to be canceled: in the second case that is done now, not when its lease lapses."""
    try:
        if not context.fenced and await runtime.ledger.release([claim], only_canceled=True):
            return Canceled(reason=CANCELED)
    except Exception as error:
        log.warning("release_failed", task_id=str(claim.id), error=repr(error))
    return outcome


async def _abandon(runtime: Runtime, claim: Claim, context: Context) -> None:
    """The worker stops: hand the message back, unless its side effect may have begun."""
    if not context.fenced:
        await runtime.ledger.release([claim])
        return
    doubt = Unknown(reason="the worker stopped past the point of no return")
    await runtime.ledger.settle(claim, doubt, fenced=True, report=context.detail)
    runtime.concluded(context, doubt)


class Row:
    """The marks of a durable message: its row."""

    __slots__ = ("_claim", "_runtime")

    def __init__(self, runtime: Runtime, claim: Claim) -> None:
        self._runtime = runtime
        self._claim = claim

    async def fence(self) -> None:
        await self._runtime.ledger.fence(self._claim)

    async def progress(self, done: int, total: int | None, note: str) -> None:
        await self._runtime.ledger.progress(self._claim, done, total, note)


def _durable_context(runtime: Runtime, actor: Actor[..., Any], claim: Claim, delivery: Delivery) -> Context:
    return Context(
        id=claim.id,
        actor=actor,
        queue=claim.queue,
        attempt=claim.attempts + 1,
        crashes=claim.crashes,
        snoozes=claim.snoozes,
        epoch=claim.epoch,
        durable=True,
        redelivered=claim.crashes > 0,
        headers=claim.headers,
        waited=claim.waited,
        marks=Row(runtime, claim),
    )


def _direct_context(actor: Actor[..., Any], delivery: Delivery) -> Context:
    return Context(
        id=delivery.id,
        actor=actor,
        queue=delivery.queue,
        attempt=delivery.retries + 1,
        crashes=_count(delivery.headers.get("crashes")),
        snoozes=_count(delivery.headers.get("snoozes")),
        redelivered=delivery.redelivered,
        headers=delivery.headers,
        expires_at=delivery.expires_at,
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
