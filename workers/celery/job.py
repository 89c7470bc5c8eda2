"""One piece of work in the pool, and what the pool tells Celery about it."""

from __future__ import annotations

import os
import sys
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

current_job: ContextVar[Job | None] = ContextVar("workers.celery.job", default=None)


class Job:
    """What `Pool.apply_async` returns; `celery.worker.request.Request` keeps a weak reference to it.

    The callbacks are Celery's; `tell` brings them to the thread they belong to, in order.
    """

    def __init__(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        tell: Callable[..., None],
        callback: Callable[..., Any] | None = None,
        accept_callback: Callable[..., Any] | None = None,
        error_callback: Callable[..., Any] | None = None,
        timeout_callback: Callable[..., Any] | None = None,
        soft_timeout: float | None = None,
        timeout: float | None = None,
        correlation_id: str | None = None,
    ) -> None:
        self.target = target
        self.args = args
        self.kwargs = kwargs
        self.soft_timeout = soft_timeout
        self.timeout = timeout
        self.id = correlation_id
        self.task: asyncio.Task[Any] | None = None
        self.host: asyncio.Task[None] | None = None
        self.terminated = False
        self.released = False
        self._tell = tell
        self._callback = callback
        self._accept_callback = accept_callback
        self._error_callback = error_callback
        self._timeout_callback = timeout_callback
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin(self, task: asyncio.Task[Any]) -> None:
        """Notes which asyncio task runs this job and announces the start."""
        self.task = task
        self._loop = task.get_loop()
        if self._accept_callback is not None:
            self._tell(self._accept_callback, os.getpid(), time.monotonic())

    def terminate(self, signal: object = None) -> None:
        """Cancels the coroutine, whatever the signal; called by `revoke(terminate=True)`, from any thread."""
        self.terminated = True
        self._cancel("revoked")

    def release(self) -> None:
        """Cancels the coroutine because the worker stops; the message goes back to the queue."""
        self.released = True
        self._cancel("shutdown")

    def announce_timeout(self, *, soft: bool) -> None:
        """Tells Celery that a time limit has passed."""
        if self._timeout_callback is not None:
            self._tell(self._timeout_callback, soft, self.soft_timeout if soft else self.timeout)

    def finish(self, task: asyncio.Task[Any]) -> None:
        """Reports how the work ended."""
        self.task = None  # it holds the exception, whose traceback holds this job
        if task.cancelled():
            if not self.terminated and not self.released:
                self._fail(WorkerLostError("the task cancelled itself"))
        elif (error := task.exception()) is not None:
            self._fail(error)
        elif self._callback is not None:
            self._tell(self._callback, task.result())

    def _fail(self, error: BaseException) -> None:
        if self._error_callback is None:
            return
        try:
            raise error
        except BaseException:
            info = ExceptionInfo(sys.exc_info())
        finally:
            del error  # its traceback holds this frame
        self._tell(self._error_callback, info)

    def _cancel(self, reason: str) -> None:
        if self._loop is not None and self.task is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.task.cancel, reason)
