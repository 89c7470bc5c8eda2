"""Telling Celery's main thread what happened on the loop: in order, from any thread."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger(__name__)


class Letters:
    """Calls to make on the main thread: by Celery's hub, or where its consumer has none by a thread of their own."""

    def __init__(self) -> None:
        self.hub: Any = None
        """kombu's event loop, once Celery's consumer runs one."""
        self._waiting: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._reader = threading.RLock()  # a signal handler may read in the middle of reading
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tell")

    def send(self, function: Callable[..., Any], *args: Any) -> None:
        """Calls a function on the main thread, after everything sent before."""
        self._waiting.append((function, args))
        if self.hub is not None:
            self.hub.call_soon(self.read)
        else:
            self._thread.submit(self.read)

    def read(self) -> None:
        """Makes the calls that wait; what they ask the hub to call soon, it calls now and not after its next sleep."""
        with self._reader:
            while self._waiting:
                function, args = self._waiting.popleft()
                _call(function, *args)
        if self.hub is not None and self.hub._ready:  # `call_soon` wakes the hub from other threads only
            self.wake()

    def read_all(self) -> None:
        """Does what Celery's loop, when it has ended, would do: these calls, and those it was asked to make soon."""
        self.read()
        if self.hub is not None:
            for callback in self.hub._pop_ready():
                _call(callback)

    def wake(self) -> None:
        """Ends the hub's sleep. For signal handlers: they may take no lock, so not `call_soon`."""
        waker = getattr(self.hub, "_waker", None)
        if waker is not None:
            waker.wake()

    def close(self) -> None:
        """Sends nothing more."""
        self._thread.shutdown(wait=False)


def _call(function: Callable[..., Any], *args: Any) -> None:
    try:
        function(*args)
    except Exception:
        log.exception("callback_failed")
