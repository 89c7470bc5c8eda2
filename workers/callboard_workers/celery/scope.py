"""Whose request is it? Celery's request stacks, kept apart per attempt instead of per thread.

Celery keys its stacks by greenlet or thread (`celery.utils.threads`): attempts that take turns on one event loop
would all see the request that was pushed last. A context variable follows an attempt through its tasks, threads and
greenlets.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from celery._state import _task_stack
from celery.utils.threads import get_ident

_scope: ContextVar[object | None] = ContextVar("callboard_workers.celery.scope", default=None)


def open_scope() -> None:
    """Gives the current context stacks of its own, to be called at the start of an attempt."""
    _scope.set(object())


def ident() -> Any:
    """What the stacks are keyed by: the attempt's scope, or outside of one Celery's own key."""
    return _scope.get() or get_ident()


def keep_apart(stack: Any) -> Any:
    """Makes one of Celery's `LocalStack`s follow the attempt; returns it."""
    stack.__ident_func__ = ident
    return stack


keep_apart(_task_stack)
