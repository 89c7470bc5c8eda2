"""The broker's address as the two libraries write it."""

from __future__ import annotations

from typing import Any


def redis_url(app: Any) -> str | None:
    """The broker as redis-py writes it, or None if it is anything but one Redis server."""
    return normal(app.conf.broker_read_url or app.conf.broker_url)


def normal(url: object) -> str | None:
    """A URL of Celery's as redis-py writes it, or None if it is anything but one Redis server."""
    if not isinstance(url, str) or ";" in url:
        return None
    if url.startswith("redis+socket://"):
        return "unix://" + url.removeprefix("redis+socket://").replace("virtual_host=", "db=")
    return url if url.startswith(("redis://", "rediss://")) else None
