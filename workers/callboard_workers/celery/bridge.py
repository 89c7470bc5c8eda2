"""From Celery's synchronous tracer to coroutines and back.

Celery's `build_tracer` runs unmodified inside a greenlet; where it calls the task's `run()`, the coroutine is handed
to the event loop and the greenlet sleeps until it is done: the way SQLAlchemy's asyncio layer works, by the same
functions.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from typing import TYPE_CHECKING, Any, TypeVar

from celery.exceptions import SoftTimeLimitExceeded

from callboard_workers.celery.job import current_job, in_time

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

T = TypeVar("T")


def is_async(fun: Callable[..., Any]) -> bool:
    """Whether calling the function makes a coroutine."""
    return inspect.iscoroutinefunction(inspect.unwrap(fun))


def bridged(fun: Callable[..., Coroutine[Any, Any, T]]) -> Callable[..., Any]:
    """A coroutine function as the plain function Celery expects.

    Inside a worker it returns the coroutine's value; called from other async code, the coroutine itself; elsewhere
    (`apply()`, `task_always_eager`) it runs a loop of its own.
    """
    if (made := getattr(fun, "bridged", None)) is not None:
        return made  # type: ignore[no-any-return]

    @functools.wraps(fun)
    def run(*args: Any, **kwargs: Any) -> Any:
        return wait_for(fun(*args, **kwargs))

    run.__signature__ = inspect.signature(fun)  # type: ignore[attr-defined]
    run.runs_on_loop = True  # type: ignore[attr-defined]
    fun.bridged = run  # type: ignore[attr-defined] # Celery tells a task declared twice by the identity of its function
    return run


def in_greenlet() -> bool:
    """Whether Celery's tracer runs here; a worker that never ran it has not loaded what tells."""
    tells = getattr(sys.modules.get("sqlalchemy.util.concurrency"), "in_greenlet", None)  # it may be half loaded
    return tells is not None and tells()


def _await(awaitable: Awaitable[T]) -> T:
    from sqlalchemy.util.concurrency import await_  # noqa: PLC0415 - a worker of actors needs none

    return await_(awaitable)


def wait_for(coroutine: Coroutine[Any, Any, T]) -> Any:
    """The coroutine's value, or the coroutine where only its caller can wait for it."""
    if in_greenlet():
        return in_time(_await, within_soft_limit(coroutine))
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    return coroutine


def offload(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Calls something blocking: on a thread while the loop goes on, when called from within a job's greenlet."""
    if in_greenlet():
        return _await(asyncio.to_thread(function, *args, **kwargs))
    return function(*args, **kwargs)


async def within_soft_limit(coroutine: Coroutine[Any, Any, T]) -> T:
    """Cancels the coroutine at the job's soft time limit and reports that as Celery does."""
    job = current_job.get()
    if job is None or not job.soft_timeout:
        return await coroutine
    limit = asyncio.timeout(job.soft_timeout)
    try:
        async with limit:
            return await coroutine
    except TimeoutError:
        if not limit.expired():
            raise
        job.announce_timeout(soft=True)
        raise SoftTimeLimitExceeded(job.soft_timeout) from None
