"""The pool: runs a worker's tasks as coroutines on one loop thread."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import structlog
from celery import signals
from celery.concurrency.base import BasePool
from celery.worker import state
from sqlalchemy.util.concurrency import greenlet_spawn

from workers.celery.health import Health
from workers.celery.job import Job, current_job
from workers.celery.scope import open_scope
from workers.celery.slots import Slots
from workers.loop import LoopThread

if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.celery.front import Front
    from workers.runtime import Runtime

log = structlog.get_logger(__name__)

MAX_THREADS = 32
"""Plain `def` tasks of Celery run on at most this many threads."""


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
        self.slots = Slots(self.limit)
        self.thread = LoopThread("actors")
        self.runtime: Runtime | None = None
        self.jobs: set[Job] = set()
        self.front: Front | None = None
        """Our own intake, where the broker is Redis; made by our consumer."""
        self.closing = False
        self._hurry = False
        self._health: Health | None = None
        self._hub: Any = None
        self._letters: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._reader = threading.RLock()  # a signal handler may read in the middle of reading
        self._threads = ThreadPoolExecutor(min(MAX_THREADS, self.limit), thread_name_prefix="task")
        self._tell_thread = ThreadPoolExecutor(1, thread_name_prefix="tell")

    def on_start(self) -> None:
        """Starts the loop thread and builds the Runtime on it."""
        signals.worker_shutting_down.connect(self._wake_hub)
        self.thread.start()
        self.runtime = self.thread.run(self._build_runtime(), timeout=60)
        _settle_memory()

    async def _build_runtime(self) -> Runtime | None:
        options = self.app.worker_options
        if options.health_port is not None:
            self._health = Health(self, options.health_host, options.health_port)
            await self._health.start()
        factory = self.app.runtime_factory
        runtime: Runtime | None = None if factory is None else await factory()
        if runtime is not None:
            await runtime.start(worker=True)
        return runtime

    @property
    def running(self) -> int:
        """How many messages are being run."""
        return len(self.jobs) + (len(self.front.desk.attempts.running) if self.front is not None else 0)

    def register_with_event_loop(self, hub: Any) -> None:
        """Called whenever Celery's consumer (re)connects."""
        self._hub = hub

    def _wake_hub(self, **_: Any) -> None:
        """A signal asks for the end: do not sleep over it. A signal handler may take no lock, so not `call_soon`."""
        waker = getattr(self._hub, "_waker", None)
        if waker is not None:
            waker.wake()

    def on_apply(
        self, target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], **options: Any
    ) -> Job:
        """Puts a job on the loop; it waits there for a free slot."""
        wanted = ("callback", "accept_callback", "error_callback", "timeout_callback", "soft_timeout", "timeout")
        chosen = {name: options.get(name) for name in (*wanted, "correlation_id")}
        job = Job(target, tuple(args), kwargs, tell=self.tell, **chosen)
        self.jobs.add(job)
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

    def tell(self, function: Callable[..., Any], *args: Any) -> None:
        """Calls a function on Celery's main thread, after everything told before; from any thread."""
        self._letters.append((function, args))
        if self._hub is not None:
            self._hub.call_soon(self.read_letters)
        else:
            self._tell_thread.submit(self.read_letters)

    def read_letters(self) -> None:
        """Tells what waits to be told."""
        with self._reader:
            while self._letters:
                function, args = self._letters.popleft()
                try:
                    function(*args)
                except Exception:
                    log.exception("callback_failed")

    def on_stop(self) -> None:
        """Waits for what runs, cancels it when the grace is over, settles, closes the Runtime and the loop."""
        self._end(0 if state.should_terminate else self.app.worker_options.grace)

    def on_terminate(self) -> None:
        """As on_stop, without the grace."""
        self._end(0)

    def _end(self, grace: float) -> None:
        if self.closing:  # a second signal, handled in the middle of the first one's wait: that one hurries up
            self._hurry = True
            return
        self.closing = True
        if self.front is not None:
            self.front.cancel()
        self._wait(grace)
        if self._busy:
            self._cancel()
            self._hurry = False
            self._wait(self.app.worker_options.farewell)
        self._close()

    @property
    def _busy(self) -> bool:
        return bool(self.jobs or (self.front is not None and self.front.busy))

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._busy and time.monotonic() < deadline and not self._hurry:
            self._tell_hub()
            time.sleep(0.01)
        self._tell_hub()

    def _tell_hub(self) -> None:
        """Does what Celery's loop, which has ended, would do: tells what waits, runs what it was asked to run soon."""
        self.read_letters()
        if self._hub is not None:
            for callback in self._hub._pop_ready():
                try:
                    callback()
                except Exception:
                    log.exception("callback_failed")

    def _cancel(self) -> None:
        log.warning("attempts_cancelled", jobs=len(self.jobs), hint="their messages are given back")
        for job in tuple(self.jobs):
            job.release()
        if self.front is not None:
            self.front.cancel_attempts()

    def _close(self) -> None:
        for close in (self._close_front, self._close_runtime, self._close_health):
            try:
                close()
            except Exception:
                log.exception("pool_stop_failed")
        self.thread.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._tell_thread.shutdown(wait=False)

    def _close_front(self) -> None:
        if self.front is not None:
            self.front.finish()

    def _close_runtime(self) -> None:
        if self.runtime is not None:
            farewell = self.app.worker_options.farewell
            self.thread.run(self.runtime.stop(timeout=farewell), timeout=farewell * 2)

    def _close_health(self) -> None:
        if self._health is not None:
            self.thread.run(self._health.stop(), timeout=1)

    def _spawn(self, job: Job) -> None:
        context = contextvars.Context()
        job.host = asyncio.get_running_loop().create_task(self._run(job), context=context)

    async def _run(self, job: Job) -> None:
        try:
            await self.slots.take()
            try:
                await self._work(job)
            finally:
                self.slots.give_back()
        finally:
            self.jobs.discard(job)

    async def _work(self, job: Job) -> None:
        """Runs the job until it ends or its hard limit passes: then it is left behind and its slot is free."""
        if job.terminated or job.released:
            return
        open_scope()
        current_job.set(job)
        work = asyncio.create_task(self._call(job), name=job.id)
        job.begin(work)
        await asyncio.wait({work}, timeout=job.timeout)
        if work.done():
            job.finish(work)
        else:
            work.cancel("time limit")
            job.announce_timeout(soft=False)

    async def _call(self, job: Job) -> Any:
        if self._runs_on_loop(job):
            return await greenlet_spawn(job.target, *job.args, **job.kwargs)
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: context.run(job.target, *job.args, **job.kwargs))

    def _runs_on_loop(self, job: Job) -> bool:
        """Whether the job is Celery's tracer (its first argument is the task's name) over a coroutine function."""
        task = self.app.tasks.get(job.args[0]) if job.args else None
        return getattr(task, "runs_on_loop", False)

    def _get_info(self) -> dict[str, Any]:
        info = super()._get_info()
        return {**info, "running": self.running, "loop": type(self.thread.loop).__module__}


def _settle_memory() -> None:
    """Keep the collector away from what lives as long as the process: going over it was 40 % of a small task."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
