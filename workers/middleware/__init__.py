"""One behaviour per file; `defaults()` is the usual onion, to which yours is appended."""

from __future__ import annotations

from workers.middleware.base import Execute, Middleware, Send, onion, sending
from workers.middleware.expiry import Expiry
from workers.middleware.logs import Logs
from workers.middleware.metrics import Metrics
from workers.middleware.retry import Retries
from workers.middleware.timelimit import TimeLimit


def defaults() -> list[Middleware]:
    """Context and logs, metrics, expiry, time limit, retry: outermost first."""
    return [Logs(), Metrics(), Expiry(), TimeLimit(), Retries()]


__all__ = [
    "Execute",
    "Expiry",
    "Logs",
    "Metrics",
    "Middleware",
    "Retries",
    "Send",
    "TimeLimit",
    "defaults",
    "onion",
    "sending",
]
