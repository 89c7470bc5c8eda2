"""A worker that has run enough, or has grown too big, stops as for SIGTERM; whoever keeps it starts it again.

Celery's words for it: `--max-tasks-per-child`, `--max-memory-per-child`. Nothing is lost by it: what runs has the
grace, the rest is given back.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
from pathlib import Path

import structlog
from celery.worker import state

log = structlog.get_logger(__name__)

EVERY = 1.0
"""Seconds between two looks."""
STATM = Path("/proc/self/statm")
SPREAD = 0.1
"""Share by which the number of tasks varies, so that the workers of a fleet do not all go at once."""


class Recycling:
    """Looks at one process. Loop thread."""

    def __init__(self, tasks: int | None, memory: int | None) -> None:
        self._tasks = None if tasks is None else int(tasks * (1 + random.random() * SPREAD))  # noqa: S311 (jitter)
        self._memory = memory
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to look, if there is a limit."""
        if self._tasks is not None or self._memory is not None:
            self._task = asyncio.get_running_loop().create_task(self._look(), name="recycling")

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            if (reason := self._reason()) is not None:
                break
        log.info("worker_retires", reason=reason, tasks=state.all_total_count[0], kib=memory())
        os.kill(os.getpid(), signal.SIGTERM)

    def _reason(self) -> str | None:
        if self._tasks is not None and state.all_total_count[0] >= self._tasks:
            return "it has run its number of tasks"
        if self._memory is not None and memory() > self._memory:
            return "it takes more memory than it may"
        return None


def memory() -> int:
    """The memory of this process, in KiB; where /proc is missing, the most it ever took."""
    if STATM.exists():
        return int(STATM.read_bytes().split()[1]) * resource.getpagesize() // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
