"""Turns an actor's exception into an outcome, by its policy."""

from __future__ import annotations

from callboard_workers.context import Context
from callboard_workers.middleware.base import Execute, Middleware
from callboard_workers.policy import Outcome, decide


class Retries(Middleware):
    """Retries, snoozes, buries: whatever the policy makes of an error. The exception stays in `context.error`."""

    async def execute(self, context: Context, next: Execute) -> Outcome:
        try:
            return await next(context)
        except Exception as error:
            context.error = error
            return judge(context, error)


def judge(context: Context, error: BaseException) -> Outcome:
    """What the running attempt's policy makes of `error`."""
    return decide(
        context.actor.policy,
        error,
        attempts=context.attempt - 1,
        snoozes=context.snoozes,
        fenced=context.fenced,
    )
