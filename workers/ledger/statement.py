"""One statement, one round trip: raw asyncpg through the engine's pool, committed by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

TIMEOUT = 10.0
"""Seconds a batch may take."""

LOCK = 0x776F726B657273
"""The advisory lock under which one sweeper of the fleet works at a time."""


async def fetch(engine: AsyncEngine, sql: str, *args: Any, timeout: float = TIMEOUT) -> Sequence[asyncpg.Record]:
    """Run one statement outside any transaction; its rows. A broken connection does not go back to the pool."""
    async with engine.connect() as connection:
        raw: asyncpg.Connection[asyncpg.Record] | None = (await connection.get_raw_connection()).driver_connection
        if raw is None:
            raise ConnectionError("the pool handed out a connection that is closed")
        try:
            return await raw.fetch(sql, *args, timeout=timeout)
        except BaseException:
            if raw.is_closed():
                await connection.invalidate()
            raise


def unanswered(error: BaseException) -> bool:
    """Whether Postgres may answer the same statement later: gone, starting, full, locked, out of time."""
    if isinstance(error, asyncpg.PostgresError):
        # connection, rollback, resources, locks, shutdown, system, internal; 25006: a replica, read-only
        state = str(error.sqlstate or "")
        return state[:2] in {"08", "40", "53", "55", "57", "58", "XX"} or state == "25006"
    if isinstance(error, asyncpg.InterfaceError):
        return not isinstance(error, ValueError)
    return isinstance(error, OSError | TimeoutError | SQLAlchemyError)
