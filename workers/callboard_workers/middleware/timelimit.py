"""An attempt ends in time: it is cancelled at its limit, and written off if it does not let go."""

from __future__ import annotations

import asyncio

from callboard_workers.common.deadlines import Deadlines
from callboard_workers.context import Context
from callboard_workers.errors import TimeLimitExceeded
from callboard_workers.middleware.base import Execute, Middleware, Process
from callboard_workers.middleware.retry import judge
from callboard_workers.policy import Done, Outcome


class TimeLimit(Middleware):
    """Cancels the attempt after `time_limit` seconds, as asyncio.timeout does (a long limit may be 0.1 s late).

    `grace` seconds later the attempt is written off: its slot is free, its outcome stands, its late writes are fenced
    off, and the runtime counts it as stuck until it ends after all. The same holds when the attempt is cancelled from
    outside and does not let go.
    """

    def __init__(self) -> None:
        self._deadlines = Deadlines()

    def startup(self, runtime: Process) -> None:
        self._deadlines = Deadlines()

    async def execute(self, context: Context, next: Execute) -> Outcome:
        self._deadlines.begin(context, context.actor.policy.time_limit)
        try:
            outcome = await next(context)
        except asyncio.CancelledError:
            if context.written_off or _stopped(context):
                raise
            limit = context.actor.policy.time_limit
            context.error = (
                TimeLimitExceeded(limit)
                if context.expired and limit is not None
                else asyncio.CancelledError("the actor cancelled itself")
            )
            outcome = judge(context, context.error)
        finally:
            self._deadlines.end(context)
        if not context.cancelled:
            return outcome
        if _stopped(context) and not isinstance(outcome, Done) and not (context.fenced and outcome.definite):
            raise asyncio.CancelledError
        if context.expired and context.task is not None:
            context.task.uncancel()
        return outcome  # also when it finished while being cancelled: that is its outcome


def _stopped(context: Context) -> bool:
    """Whether somebody else than the clock, or the actor itself, asked it to stop."""
    if not context.expired:
        return context.cancelled
    return context.task is not None and context.task.cancelling() > 1
