"""One piece of work in the pool, and what the pool tells Celery about it."""

from __future__ import annotations

import functools
import os
import sys
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from billiard.einfo import ExceptionInfo
from billiard.exceptions import Terminated, WorkerLostError
from celery.exceptions import Ignore, SoftTimeLimitExceeded, TimeLimitExceeded

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from callboard_workers.celery.interrupts import Interrupts

TOO_LATE = "the task ended after its time limit, its revocation or its worker's end"

current_job: ContextVar[Job | None] = ContextVar("callboard_workers.celery.job", default=None)


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
        self.over = False
        """Whether it was ended without its task: what the task comes to counts for nothing."""
        self.interrupts: Interrupts | None = None
        """For a job that runs in a thread."""
        self._tell = tell
        self._callback = callback
        self._accept_callback = accept_callback
        self._error_callback = error_callback
        self._timeout_callback = timeout_callback

    def begin(self, task: asyncio.Task[Any]) -> None:
        """Notes which asyncio task runs this job and announces the start."""
        self.task = task
        if self._accept_callback is not None:
            self._tell(self._accept_callback, os.getpid(), time.monotonic())

    def terminate(self, signal: object = None) -> None:
        """Cancels the task, whatever the signal; called by `revoke(terminate=True)`, from any thread."""
        self.terminated = True
        self._cancel("revoked")

    def release(self) -> None:
        """Cancels the task because the worker stops; the message goes back to the queue."""
        self.released = True
        self._cancel("shutdown")

    def reach_soft_limit(self) -> None:
        """Raises SoftTimeLimitExceeded in the thread."""
        self.announce_timeout(soft=True)
        if self.interrupts is not None:
            self.interrupts.interrupt(SoftTimeLimitExceeded)

    def reach_hard_limit(self, task: asyncio.Task[Any]) -> None:
        """Leaves the task behind: it is cancelled, and what it comes to counts for nothing."""
        self._abandon(task, "time limit", TimeLimitExceeded)
        self.announce_timeout(soft=False)

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
        if self.host is not None and not (loop := self.host.get_loop()).is_closed():
            loop.call_soon_threadsafe(self._cancel_here, reason)

    def _cancel_here(self, reason: str) -> None:
        """Loop thread: what runs is cancelled, and so is the wait for a slot or a thread."""
        if self.task is not None:
            self._abandon(self.task, reason, Terminated)
        elif self.host is not None:
            self.host.cancel(reason)

    def _abandon(self, task: asyncio.Task[Any], reason: str, error: type[Exception]) -> None:
        self.over = self.interrupts is not None or not self.released  # a coroutine may still finish as the worker stops
        task.cancel(reason)
        if self.interrupts is not None:
            self.interrupts.interrupt(error)


def in_time(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Calls a task's own code; raises Ignore, for Celery's tracer, once its job was ended without it.

    In a thread the code may be interrupted meanwhile. Outside of a job it is just called.
    """
    job = current_job.get()
    if job is None:
        return function(*args, **kwargs)
    interrupts = job.interrupts
    try:
        if interrupts is None or interrupts.begun:  # one task may call another one as a function
            result = function(*args, **kwargs)
        else:
            result = interrupts.call(function, *args, **kwargs)
    except Exception:
        if job.over:
            raise Ignore(TOO_LATE) from None
        raise
    if job.over:
        raise Ignore(TOO_LATE)
    return result


def guard(task: Any) -> None:
    """Makes a `def` task call its own code by `in_time`."""
    name = "_orig_run" if hasattr(task, "_orig_run") else "run"  # within Celery's autoretry, which sends messages
    run = getattr(task, name)
    if getattr(run, "guarded", False):
        return

    @functools.wraps(run)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        return in_time(run, *args, **kwargs)

    guarded.guarded = True  # type: ignore[attr-defined]
    setattr(task, name, guarded)
