"""The broker's address as the two libraries write it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from callboard_workers.redis.address import is_sentinel


def redis_url(app: Any) -> str | None:
    """The broker as callboard_workers.redis.address reads it, or None if it is anything but Redis."""
    url = normal(app.conf.broker_read_url or app.conf.broker_url)
    if url is not None and is_sentinel(url) and "master_name=" not in url:
        options = app.conf.broker_transport_options
        own = {f"sentinel_{name}": value for name, value in (options.get("sentinel_kwargs") or {}).items()}
        query = {"master_name": options.get("master_name"), **own}
        known = {name: query[name] for name in _KNOWN if query.get(name)}
        return f"{url}?{urlencode(known)}" if "master_name" in known else None
    return url


_KNOWN = ("master_name", "sentinel_username", "sentinel_password")


def normal(url: object) -> str | None:
    """A URL of Celery's as callboard_workers.redis.address reads it, or None if it is anything but Redis."""
    if not isinstance(url, str):
        return None
    if is_sentinel(url):
        return url
    if ";" in url:
        return None
    if url.startswith("redis+socket://"):
        return "unix://" + url.removeprefix("redis+socket://").replace("virtual_host=", "db=")
    for name in ("required", "optional", "none"):  # Celery takes the names of the ssl module as well
        url = url.replace(f"ssl_cert_reqs=CERT_{name.upper()}", f"ssl_cert_reqs={name}")
    return url if url.startswith(("redis://", "rediss://")) else None
