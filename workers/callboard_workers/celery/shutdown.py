"""The end of a worker process: wait, cancel, give back, settle, close; each step bounded.

Celery's main thread brings it about, after it has taken leave of the broker. A broker that is frozen holds it up for
minutes, one socket timeout after the other: then a thread of our own does without it.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog
from celery.worker import state

if TYPE_CHECKING:
    from collections.abc import Callable

    from callboard_workers.celery.pool import Pool

log = structlog.get_logger(__name__)


AWAITED = 2.0
"""Seconds after a signal within which Celery's main thread is to begin the end."""
LAST = 5.0
"""Seconds it may take to leave when everything is settled, with what an app does at its exit."""
BRIEF = 1.0
"""Seconds it may take where it has not come to the end of the pool at all."""
STEPS = 8
"""How often `farewell` is waited for at most, once the grace is over: attempts, results, messages, links, Runtime."""


class Shutdown:
    """Ends a pool, once. The thread that Celery runs on, also from within a signal handler that interrupts it.

    No lock and no Event: a handler that came while this very thread holds one would wait for itself.
    """

    def __init__(self, pool: Pool) -> None:
        self.begun = False
        self._ended = False
        self._pool = pool
        self._hurry = False
        self._runner: dict[str, threading.Thread] = {}
        """Who ends the pool, once that is settled: a dict settles it in one step."""
        self._stand_in: threading.Thread | None = None
        self._attended = False
        self._signalled = False

    def expect(self, grace: float | None) -> None:
        """Signal handler: the process is to end, whether Celery's main thread comes to it or not; None: at once."""
        with suppress(RuntimeError):
            self._pool.thread.call_soon(self._pool.give_back)
        if self._pool.front is None:  # Celery's own consumer takes its time, and is given it
            return
        self._signalled = True
        if self._ended:  # a cold shutdown stops the pool before it tells of the signal
            _leave_soon(LAST)
            return
        with suppress(RuntimeError):  # the loop is closed: all is done
            self._pool.thread.call_soon(self._watch, grace)

    def run(self, grace: float | None) -> None:
        """Fetches nothing more, waits `grace` seconds for what runs, cancels the rest, closes everything.

        None, a cold shutdown: waits for nothing, nor for what has passed its fence.
        """
        me = threading.current_thread()
        if self._runner.setdefault("first", me) is not me:
            if me is not self._stand_in:  # which may come too late: Celery is about it
                self._look_on(grace)
            return
        if self.begun:  # a second signal, in the middle of the first one's wait
            self._hurry = True
            return
        self.begun = True
        try:
            self._run(grace)
        finally:
            self._ended = True
            if self._signalled:
                _leave_soon(self._patience())

    def _patience(self) -> float:
        """Seconds for Celery's main thread to leave by itself."""
        return LAST if self._attended or self._runner["first"] is not self._stand_in else BRIEF

    def _look_on(self, grace: float | None) -> None:
        """Celery's thread, late: what it has to be told is told as long as the other one is about it."""
        self._attended = True
        self._hurry = self._hurry or grace is None
        while not self._ended:
            self._pool.letters.read_all()
            time.sleep(0.01)
        self._pool.letters.read_all()

    def _watch(self, grace: float | None) -> None:
        """Loop thread."""
        loop = self._pool.thread.loop
        loop.call_later(AWAITED, self._do_without, grace)
        longest = max(grace or 0.0, self._fenced_timeout(grace))
        loop.call_later(AWAITED + longest + STEPS * self._pool.options.farewell + LAST, _leave)

    def _do_without(self, grace: float | None) -> None:
        if not self.begun:
            log.warning("celery_stands_still", seconds=AWAITED, hint="its main thread waits for the broker, we do not")
            self._stand_in = threading.Thread(target=self.run, args=(grace,), name="shutdown", daemon=True)
            self._stand_in.start()

    def _run(self, grace: float | None) -> None:
        pool = self._pool
        began = time.monotonic()
        log.info("worker_stopping", running=pool.running, grace=grace)
        pool.thread.call_soon(pool.give_back)
        self._wait(grace or 0.0, lambda: pool.busy)
        if pool.fenced and grace is not None and not self._hurry:
            self._wait_for_fenced(began + self._fenced_timeout(grace))
        if pool.busy:
            self._cancel()
            self._hurry = False
            self._wait(pool.options.farewell, lambda: pool.busy)
        self._close()

    def _fenced_timeout(self, grace: float | None) -> float:
        """Seconds for attempts past their fence; a cold shutdown waits for nothing."""
        return 0.0 if grace is None else self._pool.options.fenced_timeout

    def _wait_for_fenced(self, until: float) -> None:
        """Everything else is given back; what waits for an answer goes on, so that its outcome is known."""
        pool = self._pool
        log.info("fenced_attempts_awaited", count=pool.fenced, seconds=round(max(0.0, until - time.monotonic()), 1))
        pool.thread.call_soon(lambda: pool.give_back(all=True))
        self._wait(until - time.monotonic(), lambda: pool.fenced > 0)
        self._wait(pool.options.farewell, lambda: pool.busy)

    def _wait(self, seconds: float, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + seconds
        while condition() and time.monotonic() < deadline and not self._hurry:
            self._read()
            time.sleep(0.01)
        self._read()

    def _read(self) -> None:
        """Only on Celery's thread: what it is told may wait for the broker."""
        if threading.current_thread() is not self._stand_in:
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
        self._pool.threads.close()
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


def _leave_soon(seconds: float) -> None:
    threading.Thread(target=_leave_after, args=(seconds,), name="last", daemon=True).start()


def _leave_after(seconds: float) -> None:
    time.sleep(seconds)  # the end of the process ends this thread
    _leave()


def _leave() -> None:
    """End the process here and now: all that could be told to the broker is told, and Celery still waits for it."""
    try:
        teller = threading.Thread(target=_tell, daemon=True)  # who reads the log may stand still as well
        teller.start()
        teller.join(BRIEF)
    finally:
        os._exit(int(state.should_terminate or 0))


def _tell() -> None:
    log.warning("celery_left_behind", hint="what the broker was not told runs again when the lease is over")
    logging.shutdown()
    sys.stdout.flush()
