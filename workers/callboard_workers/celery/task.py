"""The base of every task of the app."""

from __future__ import annotations

from typing import Any

from celery import Task as StockTask
from celery.backends.base import DisabledBackend

from callboard_workers.celery.bridge import in_greenlet, offload
from callboard_workers.celery.scope import keep_apart

_BLOCKING = frozenset(
    {"mark_as_done", "mark_as_failure", "mark_as_retry", "mark_as_revoked", "store_result", "process_cleanup"}
)


class Task(StockTask):
    """A Celery task that may be a coroutine function and never blocks the loop it runs on."""

    abstract = True

    @classmethod
    def on_bound(cls, app: Any) -> None:
        """Keeps `self.request` apart for attempts that take turns on the loop."""
        keep_apart(cls.request_stack)

    @property
    def runs_on_loop(self) -> bool:
        """Whether the task is a coroutine function: then it runs on the loop, otherwise on a thread."""
        run = getattr(self, "_orig_run", self.run)
        return getattr(run, "runs_on_loop", False)

    def apply_async(self, *args: Any, **options: Any) -> Any:
        """As Celery's; on the worker's loop the publishing is done by a thread (`self.retry`, canvas)."""
        return offload(super().apply_async, *args, **options)

    @property
    def backend(self) -> Any:
        """The result backend; on the worker's loop one whose round trips do not block it."""
        stock = self._find_backend()
        if in_greenlet() and not isinstance(stock, DisabledBackend):
            return OffLoop(self._find_backend)
        return stock

    @backend.setter
    def backend(self, value: Any) -> None:
        self._backend = value

    def _find_backend(self) -> Any:
        return self.app.backend if self._backend is None else self._backend


class OffLoop:
    """A result backend whose round trips are made by threads; each thread finds a backend of its own."""

    def __init__(self, find: Any) -> None:
        self._find = find

    def __getattr__(self, name: str) -> Any:
        if name not in _BLOCKING:
            return getattr(self._find(), name)

        def call(*args: Any, **kwargs: Any) -> Any:
            return offload(lambda: getattr(self._find(), name)(*args, **kwargs))

        return call
