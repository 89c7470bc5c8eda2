"""How an attempt ends: its outcome is settled, what follows it is sent, and whoever ran it is told.

Usually the attempt's own task does that. An attempt that was cancelled and does not let go is ended by another task,
once; nothing that it does afterwards counts.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

import structlog

from callboard_workers.context import Context, correlation
from callboard_workers.errors import TimeLimitExceeded, WorkerStopping
from callboard_workers.ledger import Claim, State
from callboard_workers.maintenance import CANCELED
from callboard_workers.message import Gate, Message, Priority
from callboard_workers.middleware.retry import judge
from callboard_workers.policy import Canceled, DeadLetter, Done, Ignored, Outcome, Unknown

if TYPE_CHECKING:
    from callboard_workers.actors.message_settings import Extras
    from callboard_workers.maintenance import Held
    from callboard_workers.runtime import Runtime

log = structlog.stdlib.get_logger("callboard_workers.execution.attempt")

End = Outcome | BaseException
"""What an attempt came to; an exception is what stopped it from outside, or a fault that is not the actor's."""


class Holder(Protocol):
    """Whoever runs an attempt: is shown its context, and told if it was left behind."""

    context: Context | None

    def left_behind(self, end: End) -> None:
        """The attempt has ended for everybody but its own task, which may run on."""


class Ending:
    """The end of a message without a row: its outcome is the caller's to carry out."""

    __slots__ = ("context", "holder", "runtime")

    def __init__(self, runtime: Runtime, context: Context, holder: Holder) -> None:
        self.runtime = runtime
        self.context = context
        self.holder = holder
        context.ending = self
        holder.context = context

    async def conclude(self, outcome: Outcome) -> Outcome:
        """The outcome stands."""
        if self.context.actor.extras is not None:
            await _follow(self.context.actor.extras, self.context, outcome)
        self._over(outcome)
        return outcome

    def _over(self, outcome: Outcome) -> None:
        self.runtime.concluded(self.context, outcome)
        self.context.ending = None  # so that neither has to wait for the garbage collector

    async def abandon(self) -> None:
        """The worker stops: there is nothing to give back."""

    def leave_behind(self) -> None:
        """End the attempt without its task, which is left to itself."""
        context = self.context
        context.written_off = True
        if context.task is not None:
            self.runtime.write_off(context, context.task)
        self.runtime.begin(self._end_elsewhere(), name="left behind")

    async def _end_elsewhere(self) -> None:
        end: End
        try:
            if (outcome := _outcome(self.context)) is None:
                await self.abandon()
                end = asyncio.CancelledError()
            else:
                end = await self.conclude(outcome)
        except Exception as error:
            end = error
        self.holder.left_behind(end)


class ClaimedEnding(Ending):
    """The end of a durable message: its row says how."""

    __slots__ = ("claim", "held")

    def __init__(self, runtime: Runtime, context: Context, holder: Holder, claim: Claim, held: Held) -> None:
        super().__init__(runtime, context, holder)
        self.claim = claim
        self.held = held

    async def conclude(self, outcome: Outcome) -> Outcome:
        """The outcome is settled, whatever becomes of the task that asks for it."""
        self.held.ended()
        outcome = await self.runtime.to_the_end(_settle(self.runtime, self.claim, self.context, outcome))
        self.runtime.let_go(self.claim)
        self._over(outcome)
        return outcome

    async def abandon(self) -> None:
        """The worker stops: the row is given back, or put in doubt."""
        self.held.ended()
        await self.runtime.to_the_end(_abandon(self.runtime, self.claim, self.context))
        self.runtime.let_go(self.claim)


def ordered(context: Context) -> Outcome | None:
    """What a cancellation means that the runtime itself ordered."""
    if context.reason is None or context.fenced:
        return None
    return Canceled(reason=context.reason) if context.reason == CANCELED else Ignored(reason=context.reason)


def _outcome(context: Context) -> Outcome | None:
    """What is to become of an attempt that did not let go; None if it was stopped from outside."""
    limit = context.actor.policy.time_limit
    if context.expired and limit is not None:
        context.error = TimeLimitExceeded(limit)
        return judge(context, context.error)
    return ordered(context)


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
    if claim.follow is None:
        return
    if (state is State.DONE and "group" in claim.follow) or (state is State.DEAD and "dead" in claim.follow):
        runtime.ring_followers(claim.id)
    if state is State.DONE:
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


async def _follow(extras: Extras, context: Context, outcome: Outcome) -> None:
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
    """The row was lost; or it is to be canceled, or the worker stops: then it is released before its lease lapses."""
    only_canceled = not isinstance(context.error, WorkerStopping)
    try:
        if not context.fenced and await runtime.ledger.release([claim], only_canceled=only_canceled) and only_canceled:
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
