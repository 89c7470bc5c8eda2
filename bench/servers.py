"""The servers of a run: the embedded PostgreSQL and Valkey, on ports of their own, gone afterwards."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from bench.progress import say
from bench.venvs import cache
from service.db import engine as db
from service.db import migrate
from service.dev.databases import Databases
from service.dev.stack import THROWAWAY_PREFIX, Stack, sweep
from service.settings import Settings

TEMPLATE = "bench_template"
OWN = {"info", "config|resetstat", "config", "flushall", "ping", "hello", "client|setinfo", "client|setname", "select"}
"""Commands that are not part of any task's cost."""


class Servers:
    """PostgreSQL with fsync on a disk and Valkey with its append-only file."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.redis_url = stack.redis_url
        self.redis = redis.Redis.from_url(stack.redis_url, socket_timeout=30)
        self._databases: Databases | None = None
        self._numbers = itertools.count(1)

    def clean(self) -> None:
        """Forget every key."""
        self.redis.flushall()

    def reset_commands(self) -> None:
        self.redis.config_resetstat()

    def commands(self) -> int:
        """Commands since the reset, those inside scripts included."""
        stats = self.redis.info("commandstats")
        return sum(
            int(figures["calls"]) for name, figures in stats.items() if name.removeprefix("cmdstat_").lower() not in OWN
        )

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a fresh, migrated database."""
        if self._databases is None:
            self._databases = Databases(self.stack.postgres.url("postgres"))
            say("making the database")
            self._databases.create(TEMPLATE)
            asyncio.run(_migrate(self.stack.postgres.url(TEMPLATE)))
        name = f"bench_{next(self._numbers)}"
        self._databases.create(name, TEMPLATE)
        try:
            yield self.stack.postgres.url(name)
        finally:
            self._databases.drop(name)

    def close(self) -> None:
        if self._databases is not None:
            self._databases.close()
        self.redis.close()


async def _migrate(url: str) -> None:
    engine = db.create_engine(Settings.from_env({"DATABASE_URL": url}), role=None)
    await migrate.upgrade(engine)
    await engine.dispose()


@contextmanager
def servers() -> Iterator[Servers]:
    """Both servers, started now."""
    say("starting PostgreSQL and Valkey")
    sweep(cache())
    data = Path(tempfile.mkdtemp(prefix=THROWAWAY_PREFIX, dir=cache()))
    try:
        with Stack(data) as stack:
            running = Servers(stack)
            try:
                yield running
            finally:
                running.close()
    finally:
        shutil.rmtree(data, ignore_errors=True)
