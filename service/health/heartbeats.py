"""Worker processes as they report themselves in Redis, every two seconds (`callboard_workers.redis.watchdog`)."""

from collections.abc import Sequence
from typing import Any

import msgspec
from redis.asyncio import Redis

HEARTBEATS, OWNERS = "workers:heartbeats", "workers:owners"
"""Redis keys of `callboard_workers.redis.keys`; importing that would load Celery."""
SILENT_SECONDS = 8.0
"""Seconds without a report after which a worker counts as stopped."""
FORGOTTEN_SECONDS = 600.0
"""Seconds after which a worker that stopped reporting is no longer listed."""


class Process(msgspec.Struct, frozen=True):
    """A worker process: its node name, its process id, the seconds since it last reported, the queues it serves.

    `queues` is None for a worker of an earlier version, which reports none; `declared` are the queues of all actors it
    knows; `lag` is the seconds for which its event loop has not responded.
    """

    node: str
    pid: str
    silent: float
    queues: list[str] | None = None
    declared: Sequence[str] = ()
    lag: float = 0.0

    @property
    def alive(self) -> bool:
        """Whether it reported lately."""
        return self.silent < SILENT_SECONDS


async def list_workers(redis: Redis, prefix: str = "") -> list[Process]:
    """List the worker processes that reported within `FORGOTTEN_SECONDS`, by name. Raises what Redis does.

    A process that is gone is left out once another one reports under its node name.
    """
    seconds, micros = await redis.time()
    now = seconds * 1000 + micros / 1000
    reports: Any = await redis.hgetall(f"{prefix}{HEARTBEATS}")
    owners: Any = await redis.zrange(f"{prefix}{OWNERS}", 0, -1, withscores=True)
    found = {name.decode(): _process(name.decode(), value, now) for name, value in reports.items()}
    for owner, until in owners:  # a worker of an earlier version has a lease only
        node, _, rest = owner.decode().partition("#")
        name = f"{node}#{rest.partition('-')[0]}"
        if name not in found and until > now:
            found[name] = Process(node, rest.partition("-")[0], 0.0)
    alive = {process.node for process in found.values() if process.alive}
    kept = [
        process
        for process in found.values()
        if process.alive or (process.node not in alive and process.silent < FORGOTTEN_SECONDS)
    ]
    return sorted(kept, key=lambda process: (process.node, process.pid))


def _process(name: str, value: bytes, now: float) -> Process:
    at, _, report = value.partition(b"\n")
    node, _, pid = name.rpartition("#")
    said = msgspec.json.decode(report)
    return Process(node, pid, max(0.0, (now - float(at)) / 1000), said["queues"], said["declared"], said["lag"])
