"""An attempt ends in time: it is cancelled at its limit, and written off if it does not let go."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from workers.context import Context
from workers.errors import TimeLimitExceeded
from workers.middleware.base import Execute, Middleware
from workers.middleware.retry import judge
from workers.policy import Done, Outcome

if TYPE_CHECKING:
    from workers.runtime import Runtime


class TimeLimit(Middleware):
    """Cancels the attempt after `time_limit` seconds, as asyncio.timeout does.

    `grace` seconds later the attempt is written off: its slot is free, its outcome stands, its late writes are fenced
    off, and the runtime counts it as stuck until it ends after all. The same holds when the attempt is cancelled from
    outside and does not let go.
    """

    def __init__(self) -> None:
        self._runtime: Runtime | None = None

    def startup(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def execute(self, context: Context, next: Execute) -> Outcome:
        policy = context.actor.policy
        if policy.time_limit is None:
            return await next(context)
        context.deadline = time.monotonic() + policy.time_limit
        task = asyncio.ensure_future(next(context))
        try:
            ended = await _ended(task, policy.time_limit)
        except asyncio.CancelledError:
            await self._stop(task, context)
            if _finished(task, context):
                return task.result()
            raise
        if not ended:
            await self._stop(task, context)
        if task.done() and not task.cancelled():
            return task.result()  # also when it finished while being cancelled: that is its outcome
        context.error = (
            asyncio.CancelledError("the actor cancelled itself") if ended else TimeLimitExceeded(policy.time_limit)
        )
        return judge(context, context.error)

    async def _stop(self, task: asyncio.Future[Outcome], context: Context) -> None:
        """Cancel, and wait for the grace; what still runs then is left to the runtime."""
        context.cancel()
        task.cancel()
        grace = asyncio.ensure_future(_ended(task, context.actor.policy.grace))
        while not grace.done():
            try:
                await asyncio.shield(grace)
            except asyncio.CancelledError:
                if grace.cancelled():
                    raise
        if not task.done() and self._runtime is not None:
            self._runtime.write_off(context, task)


def _finished(task: asyncio.Future[Outcome], context: Context) -> bool:
    """Whether an attempt that was cancelled from outside has ended in something that must not be forgotten."""
    if not task.done() or task.cancelled() or task.exception() is not None:
        return False
    outcome = task.result()
    return isinstance(outcome, Done) or (context.fenced and outcome.definite)


async def _ended(task: asyncio.Future[Outcome], seconds: float) -> bool:
    """Wait for the task at most so long; whether it ended. Cheaper than asyncio.wait, and never cancels it."""
    if task.done():
        return True
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()

    def wake(_: object = None) -> None:
        if not waiter.done():
            waiter.set_result(None)

    timer = loop.call_later(seconds, wake)
    task.add_done_callback(wake)
    try:
        await waiter
    finally:
        timer.cancel()
        task.remove_done_callback(wake)
    return task.done()
