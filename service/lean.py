"""Keeps out of a worker what its libraries load only because it is installed: colours, YAML, metrics of their own.

That is a tenth of a worker's idle memory. Actors may import it all the same: they come afterwards.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager

UNUSED = ("rich", "pygments", "yaml", "opentelemetry.sdk")
"""structlog and httpx look for rich, Celery's command line for pygments, kombu for YAML, redis-py for the SDK."""

LIBRARIES = ("structlog", "celery.bin.worker", "celery.apps.worker", "kombu.transport.redis", "redis.asyncio")


def load(*more: str) -> None:
    """Import the libraries of a worker, and `more` of them, lean; call it before anything else imports them."""
    with absent(*UNUSED):
        for name in (*LIBRARIES, *more):
            importlib.import_module(name)


@contextmanager
def absent(*packages: str) -> Iterator[None]:
    """Inside, these packages are as if they were not installed, but for those that are imported already."""
    hidden = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
