"""Tasks that an actor starts and does not wait for: seen when the attempt ends, told in the log, bounded in number."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Coroutine
from typing import Any

import structlog

from callboard_workers.context import Context, running
from callboard_workers.middleware.base import Middleware, Process
from callboard_workers.policy import Outcome

log = structlog.stdlib.get_logger("workers")

KEPT = 100
"""Tasks of one actor that may outlive its attempts; older ones are cancelled. Clients keep a few for themselves."""
TRIM = 64
"""Tasks an attempt has started after which those that have ended are forgotten."""


class Leaks(Middleware):
    """In a worker: an attempt's own tasks end with it, or are counted against its actor.

    Event: task_leaked, with how many outlive their attempts, the name of one, and how many were cancelled for it; for
    an actor's first one, and whenever tasks are cancelled.
    """

    def __init__(self) -> None:
        self.left: dict[str, deque[asyncio.Task[Any]]] = {}
        """What has outlived its attempt, by actor."""

    def startup(self, runtime: Process) -> None:
        if runtime.working:
            asyncio.get_running_loop().set_task_factory(_made)  # type: ignore[arg-type] # it passes on what is new

    def outcome(self, context: Context, outcome: Outcome) -> None:
        if context.spawned:
            left = [task for task in context.spawned if not task.done() and task is not context.task]
            context.spawned = None
            if left:
                self._keep(context, left)

    def _keep(self, context: Context, left: list[asyncio.Task[Any]]) -> None:
        name = context.actor.name
        kept = self.left.get(name)
        first = kept is None
        kept = self.left[name] = deque(task for task in (*(kept or ()), *left) if not task.done())
        surplus = max(0, len(kept) - KEPT)
        for _ in range(surplus):
            kept.popleft().cancel("its attempt has ended")
        if first or surplus:
            log.warning(
                "task_leaked",
                task_id=str(context.id),
                task_name=name,
                outliving=len(kept),
                cancelled=surplus,
                coroutine=getattr(left[-1].get_coro(), "__qualname__", "?"),
                hint="await what the actor starts, as in asyncio.TaskGroup",
            )


def _made(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **more: Any) -> asyncio.Task[Any]:
    """A task, noted with the attempt that starts it."""
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **more)
    own: contextvars.Context | None = more.get("context")
    if (context := running.get() if own is None else own.get(running)) is not None:
        spawned = context.spawned
        if spawned is None:
            spawned = context.spawned = []
        spawned.append(task)
        if len(spawned) >= TRIM and len(spawned) & (len(spawned) - 1) == 0:
            context.spawned = [each for each in spawned if not each.done()]
    return task
