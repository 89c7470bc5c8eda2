"""The end of a worker process: wait, cancel, give back, settle, close; each step bounded."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from workers.celery.pool import Pool

log = structlog.get_logger(__name__)


class Shutdown:
    """Ends a pool, once. Main thread; also from within a signal handler that interrupts it."""

    def __init__(self, pool: Pool) -> None:
        self.begun = False
        self._pool = pool
        self._hurry = False

    def run(self, grace: float) -> None:
        """Fetches nothing more, waits `grace` seconds for what runs, cancels the rest, closes everything."""
        if self.begun:  # a second signal, in the middle of the first one's wait: that one hurries up
            self._hurry = True
            return
        self.begun = True
        pool = self._pool
        log.info("worker_stopping", running=pool.running, grace=grace)
        if pool.front is not None:
            pool.front.cancel()
        self._wait(grace)
        if pool.busy:
            self._cancel()
            self._hurry = False
            self._wait(pool.options.farewell)
        self._close()

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._pool.busy and time.monotonic() < deadline and not self._hurry:
            self._pool.letters.read_all()
            time.sleep(0.01)
        self._pool.letters.read_all()

    def _cancel(self) -> None:
        pool = self._pool
        log.warning("attempts_cancelled", count=pool.running, hint="their messages are given back")
        for job in tuple(pool.jobs):
            job.release()
        if pool.front is not None:
            pool.front.cancel_attempts()

    def _close(self) -> None:
        for close in (self._close_front, self._close_runtime, self._close_health):
            try:
                close()
            except Exception:
                log.exception("shutdown_step_failed", step=close.__name__)
        self._pool.thread.stop()
        self._pool.threads.shutdown(wait=False, cancel_futures=True)
        self._pool.letters.close()

    def _close_front(self) -> None:
        if self._pool.front is not None:
            self._pool.front.finish()

    def _close_runtime(self) -> None:
        pool = self._pool
        if pool.runtime is not None:
            pool.thread.run(pool.runtime.stop(timeout=pool.options.farewell), timeout=pool.options.farewell * 2)

    def _close_health(self) -> None:
        if self._pool.health is not None:
            self._pool.thread.run(self._pool.health.stop(), timeout=1)
