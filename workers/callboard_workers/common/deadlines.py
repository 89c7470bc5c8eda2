"""When attempts must end: one coarse clock for all that run on a loop, instead of a timer and a task for each."""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from callboard_workers.context import Context

GRAIN = 0.1
"""Seconds by which a limit may be late."""
EXACT = 2.0
"""Seconds; a shorter limit has a timer of its own and is not late."""


class Deadlines:
    """Cancels attempts at their limit, and writes off those that have not let go `grace` seconds later.

    An attempt that is cancelled for another reason has the same grace. One loop only.
    """

    def __init__(self) -> None:
        self._slots: dict[int, set[Context]] = {}
        self._order: list[int] = []
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, context: Context, limit: float | None) -> None:
        """The current task runs this attempt, for at most `limit` seconds."""
        context.task = asyncio.current_task()
        context.deadlines = self
        if limit is not None:
            context.deadline = time.monotonic() + limit
            self._watch(context, limit)

    def end(self, context: Context) -> None:
        """It has come to its outcome."""
        context.deadlines = None
        self._forget(context)

    def stopping(self, context: Context) -> None:
        """It was asked to stop: its grace begins."""
        self._forget(context)
        self._watch(context, context.actor.policy.grace)

    def pause(self, context: Context) -> float | None:
        """It waits for something that is not its own work: its limit does not run. Returns the seconds left."""
        self._forget(context)
        return context.remaining

    def resume(self, context: Context, left: float | None) -> None:
        """It goes on, for at most `left` seconds."""
        if left is not None and not context.cancelled:
            context.deadline = time.monotonic() + left
            self._watch(context, left)

    def _watch(self, context: Context, seconds: float) -> None:
        if seconds < EXACT:
            context.alarm = asyncio.get_running_loop().call_later(seconds, self._due, context)
            return
        slot = int((time.monotonic() + seconds) / GRAIN) + 1
        watched = self._slots.get(slot)
        if watched is None:
            watched = self._slots[slot] = set()
            heapq.heappush(self._order, slot)
            if self._order[0] == slot:
                self._arm()
        watched.add(context)
        context.alarm = slot

    def _forget(self, context: Context) -> None:
        alarm, context.alarm = context.alarm, None
        if isinstance(alarm, int):
            if (watched := self._slots.get(alarm)) is not None:
                watched.discard(context)
        elif alarm is not None:
            alarm.cancel()

    def _arm(self) -> None:
        """Sleep until the first slot; at most one timer, however many attempts."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if self._order:
            pause = max(0.0, self._order[0] * GRAIN - time.monotonic())
            nobodys = contextvars.Context()  # not that of the attempt which happens to wind the clock
            self._timer = asyncio.get_running_loop().call_later(pause, self._tick, context=nobodys)

    def _tick(self) -> None:
        now = time.monotonic() + 0.002  # a loop's clock may be a little behind
        while self._order and self._order[0] * GRAIN <= now:
            for context in self._slots.pop(heapq.heappop(self._order)):
                context.alarm = None
                self._due(context)
        self._arm()

    def _due(self, context: Context) -> None:
        """Its time is over: the first time it is cancelled, the second time left behind."""
        if context.deadlines is not self:
            return
        if context.cancelled:
            if context.ending is not None:
                context.ending.leave_behind()
            return
        context.expired = True
        context.cancel()
        if context.task is not None:
            context.task.cancel("time limit")
