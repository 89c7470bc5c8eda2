"""The pool: runs a worker's tasks as coroutines on one loop thread."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import importlib
import os
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from billiard.einfo import ExceptionInfo
from celery import signals
from celery.concurrency.base import BasePool
from celery.worker import state

from callboard_workers.celery.health import Health
from callboard_workers.celery.interrupts import Interrupts
from callboard_workers.celery.job import Job, current_job
from callboard_workers.celery.main_thread_calls import Letters
from callboard_workers.celery.recycling import Recycling
from callboard_workers.celery.revoke import Revoker
from callboard_workers.celery.scope import open_scope
from callboard_workers.celery.shutdown import Shutdown
from callboard_workers.celery.slots import Slots
from callboard_workers.common.loop_thread import LoopThread
from callboard_workers.common.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from callboard_workers.celery.options import WorkerOptions
    from callboard_workers.celery.task_consumer import Front
    from callboard_workers.common.threads import Reserved
    from callboard_workers.runtime import Runtime

log = structlog.get_logger(__name__)

MAX_THREADS = 32
"""Plain `def` tasks of Celery run on at most this many threads."""
BRIDGE = "sqlalchemy.util.concurrency"
"""What runs Celery's tracer on the loop (callboard_workers.celery.bridge)."""
START = 60.0
"""Seconds the Runtime may take to be built."""


class Pool(BasePool):
    """Celery's pool interface over one event loop; works with Celery's own consumer and with ours.

    The process's Runtime (engine, publisher, clients) is built on the loop thread at the start and closed there at
    the end. What Celery wants to be told is told on its main thread, in order.
    """

    limit: int
    signal_safe = False
    task_join_will_block = False
    body_can_be_buffer = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.options: WorkerOptions = self.app.worker_options
        self.thread = LoopThread("actors")
        self.threads = Threads(MAX_THREADS, "task", self.app.set_current)
        self.letters = Letters()
        self.slots = Slots(self.limit)
        self.revoker = Revoker(self)
        self.recycling = Recycling(kwargs.get("maxtasksperchild"), kwargs.get("max_memory_per_child"))
        self.jobs: set[Job] = set()
        self.runtime: Runtime | None = None
        self.health: Health | None = None
        self.front: Front | None = None
        """Our own intake, where the broker is Redis; made by our consumer."""
        self._shutdown = Shutdown(self)
        self._bridge: Any = None
        self._collector: Collector | None = None

    @property
    def running(self) -> int:
        """How many messages are being run."""
        return len(self.jobs) + (len(self.front.desk.attempts.running) if self.front is not None else 0)

    @property
    def busy(self) -> bool:
        """Whether anything is still to be finished."""
        return bool(self.jobs or (self.front is not None and self.front.busy))

    @property
    def fenced(self) -> int:
        """How many attempts wait for an answer past their fence."""
        return self.runtime.fenced if self.runtime is not None else 0

    def give_back(self, *, all: bool = False) -> None:
        """Lets nothing pass its fence any more and gives back what has not: at once, or `all`; loop thread."""
        if self.runtime is not None:
            self.runtime.stopping = True
        if self.front is not None:
            self.front.give_back(all=all)
        fenced = {str(id) for id, context in self.runtime.active.items() if context.fenced} if self.runtime else set()
        for job in tuple(self.jobs):
            actor = getattr(self.app.tasks.get(job.args[0]), "actor", None) if job.args else None
            at_once = actor is not None and actor.policy.on_stop == "release"
            if (all or at_once) and not job.released and job.id not in fenced:
                job.release()

    @property
    def closing(self) -> bool:
        """Whether the worker has begun to stop."""
        return self._shutdown.begun

    def on_start(self) -> None:
        """Starts the loop thread and builds the Runtime on it."""
        signals.worker_shutting_down.connect(self._wake)
        self.thread.start()
        self.runtime = self.thread.run(self._build_runtime(), timeout=START)
        self.thread.call_soon(self.app.set_current)
        self.thread.call_soon(self.recycling.start)
        if threading.current_thread() is threading.main_thread():  # otherwise the process is its host's
            self._collector = Collector(self.limit)

    async def _build_runtime(self) -> Runtime | None:
        if self.options.health_port is not None:
            self.health = Health(self, self.options.health_host, self.options.health_port)
            await self.health.start()
        factory = self.app.runtime_factory
        runtime: Runtime | None = None if factory is None else await factory()
        if runtime is not None:
            await runtime.start(worker=True)
        return runtime

    def register_with_event_loop(self, hub: Any) -> None:
        """Called whenever Celery's consumer (re)connects."""
        self.letters.hub = hub

    def _wake(self, how: str = "Warm", **_: Any) -> None:
        self.letters.wake()
        self._shutdown.expect(self.options.grace if how == "Warm" else None)

    def tell(self, function: Callable[..., Any], *args: Any) -> None:
        """Calls a function on Celery's main thread, after everything told before; from any thread."""
        self.letters.send(function, *args)

    def on_apply(
        self, target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], **options: Any
    ) -> Job:
        """Puts a job on the loop; it waits there for a free slot."""
        wanted = ("callback", "accept_callback", "error_callback", "timeout_callback", "soft_timeout", "timeout")
        chosen = {name: options.get(name) for name in (*wanted, "correlation_id")}
        job = Job(target, tuple(args), kwargs, tell=self.tell, **chosen)
        self.jobs.add(job)  # Celery itself keeps a weak reference only
        self.thread.call_soon(self._spawn, job)
        return job

    def terminate_job(self, pid: int, signal: object = None) -> None:
        """Nothing: the process is everybody's. `Request.terminate` cancels the job itself as well."""

    def grow(self, n: int = 1) -> None:
        """Adds slots (`celery control pool_grow`, autoscale)."""
        self.limit += n
        self.thread.call_soon(self.slots.resize, self.limit)

    def shrink(self, n: int = 1) -> None:
        """Takes slots away; what runs goes on."""
        self.limit = max(1, self.limit - n)
        self.thread.call_soon(self.slots.resize, self.limit)

    def on_stop(self) -> None:
        """Waits for what runs, cancels it when the grace is over, settles, closes the Runtime and the loop."""
        self._shutdown.run(None if state.should_terminate else self.options.grace)
        self._restore()

    def on_terminate(self) -> None:
        """As on_stop, without the grace."""
        self._shutdown.run(None)
        self._restore()

    def _restore(self) -> None:
        if self._collector is not None:
            self._collector.restore()
            self._collector = None

    def _spawn(self, job: Job) -> None:
        context = contextvars.Context()
        job.host = asyncio.get_running_loop().create_task(self._run(job), context=context)

    async def _run(self, job: Job) -> None:
        thread: Reserved | None = None
        try:
            if not self._runs_on_loop(job):
                thread = await self.threads.reserve()
            await self.slots.take()
            try:
                await self._beside_others(job, thread)
            finally:
                self.slots.give_back()
        finally:
            if thread is not None:
                thread.release()
            self.jobs.discard(job)

    async def _beside_others(self, job: Job, thread: Reserved | None) -> None:
        """Runs the job while no suspect has the process to itself; an actor's attempt sees to that on its own."""
        task = self.app.tasks.get(job.args[0]) if job.args else None
        if self.runtime is None or getattr(task, "actor", None) is not None:
            return await self._work(job, thread)
        await self.runtime.isolation.enter()
        try:
            await self._work(job, thread)
        finally:
            self.runtime.isolation.leave()

    async def _work(self, job: Job, thread: Reserved | None) -> None:
        """Runs the job until it ends or its hard limit passes: then it is left behind and its slot is free."""
        if job.terminated or job.released:
            return
        open_scope()
        current_job.set(job)
        if thread is not None:
            job.interrupts = Interrupts()
        work = asyncio.create_task(self._call(job, thread), name=job.id)
        job.begin(work)
        if self.front is not None:
            self.front.desk.stock.begun(job.id)
        hard, soft = job.timeout, job.soft_timeout
        if (
            thread is not None and soft and (hard is None or soft < hard)
        ):  # a coroutine's: callboard_workers.celery.bridge
            await asyncio.wait({work}, timeout=soft)
            hard = None if hard is None else hard - soft
            if not work.done():
                job.reach_soft_limit()
        await asyncio.wait({work}, timeout=hard)
        if work.done():
            job.finish(work)
        else:
            job.reach_hard_limit(work)

    async def _call(self, job: Job, thread: Reserved | None) -> Any:
        if thread is None:
            # a worker of actors without a database never loads it; the first time, the loop does not wait for it
            self._bridge = self._bridge or await asyncio.to_thread(importlib.import_module, BRIDGE)
            return await self._bridge.greenlet_spawn(_trace, job)
        return await asyncio.shield(thread.start(partial(_trace, job)))

    def _runs_on_loop(self, job: Job) -> bool:
        """Whether the job is Celery's tracer (its first argument is the task's name) over a coroutine function."""
        task = self.app.tasks.get(job.args[0]) if job.args else None
        return getattr(task, "runs_on_loop", False)

    def _get_info(self) -> dict[str, Any]:
        info = super()._get_info()
        processes = {"processes": [os.getpid()]}  # exporters count them
        return {**info, **processes, "running": self.running, "loop": type(self.thread.loop).__module__}


def _trace(job: Job) -> Any:
    """Calls Celery's tracer, and frees the frames of a task that failed: the tracer's own is one of them."""
    result = job.target(*job.args, **job.kwargs)
    info = result[1] if isinstance(result, tuple) and len(result) == 3 else None
    if isinstance(info, ExceptionInfo) and isinstance(info.exception, BaseException):
        info.exception.__traceback__ = None
    return result


class Collector:
    """Keeps the garbage collector away from what lives as long as the process: it was 40 % of a small task.

    It runs when more has been created than all tasks in flight hold, not in the middle of every wave of them.
    """

    def __init__(self, limit: int) -> None:
        self._thresholds = gc.get_threshold()
        self._frozen = gc.get_freeze_count()
        gc.collect()
        gc.freeze()
        gc.set_threshold(max(50_000, 200 * limit), 20, 50)

    def restore(self) -> None:
        """The settings of before: the process may go on without a worker."""
        gc.set_threshold(*self._thresholds)
        if not self._frozen:
            gc.unfreeze()
