"""One behaviour per file; `defaults()` is the usual onion, to which yours is appended."""

from __future__ import annotations

from callboard_workers.middleware.base import Execute, Middleware, Send, onion, sending
from callboard_workers.middleware.expiry import Expiry
from callboard_workers.middleware.leaks import Leaks
from callboard_workers.middleware.logs import Logs
from callboard_workers.middleware.metrics import Metrics
from callboard_workers.middleware.retry import Retries
from callboard_workers.middleware.timelimit import TimeLimit
from callboard_workers.middleware.tracing import Tracing


def defaults(*, tracing: bool = False) -> list[Middleware]:
    """Context and logs, leaked tasks, tracing if it is wanted, metrics, expiry, time limit, retry: outermost first."""
    return [Logs(), Leaks(), *([Tracing()] if tracing else []), Metrics(), Expiry(), TimeLimit(), Retries()]


__all__ = [
    "Execute",
    "Expiry",
    "Leaks",
    "Logs",
    "Metrics",
    "Middleware",
    "Retries",
    "Send",
    "TimeLimit",
    "Tracing",
    "defaults",
    "onion",
    "sending",
]
