"""Callboard: the service that app teams call for everything that must happen after the response."""

import importlib
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    """`celery -A service` looks for `service.celery`: found when asked for, so that nobody else imports Celery."""
    if name == "celery":
        return importlib.import_module("service.celery")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
