"""Exceptions raised in the thread of a `def` task of Celery while the task's own function runs there."""

from __future__ import annotations

import ctypes
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Interrupts:
    """Raises time limits and revocations in one job's thread.

    As the signals that do it in Celery's child processes, an exception arrives between two instructions of Python: a
    call that blocks in C, such as `time.sleep`, is not cut short, the exception is raised when it returns. It never
    arrives outside the function, so Celery's own code is not hit: while it stores a result, for example.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._due: type[BaseException] | None = None
        self.begun = False

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The thread: call a function that may be interrupted."""
        try:
            try:
                self._open()
                return function(*args, **kwargs)
            finally:
                self._close()
        except BaseException:
            self._close()  # the exception may have arrived within the first call, and a second one after it
            raise

    def interrupt(self, error: type[BaseException]) -> None:
        """Any other thread: raise the exception there; at once if the function runs, otherwise when it begins."""
        with self._lock:
            if self._thread is not None:
                _raise_in(self._thread, error)
            elif not self.begun:
                self._due = error

    def _open(self) -> None:
        with self._lock:
            self.begun = True
            self._thread = threading.get_ident()
            due = self._due
        if due is not None:
            raise due

    def _close(self) -> None:
        """From here on nothing is raised; what was to be raised and has not arrived is taken back."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None:
                _raise_in(thread, None)


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    raised = ctypes.py_object(error) if error is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)
