"""One statement, one round trip: raw asyncpg through the engine's pool, committed by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    import asyncpg
    from sqlalchemy.ext.asyncio import AsyncEngine


TIMEOUT = 10.0
"""Seconds a batch may take."""

TENANTS = "tenants"
"""The execution option that holds what tells whose rows may be seen: a function to a uuid[] literal."""

ACT = "SELECT set_config('app.tenants', $1, true)"

LOCK = 0x776F726B657273
"""The advisory lock under which one sweeper of the fleet works at a time."""


async def fetch(engine: AsyncEngine, sql: str, *args: Any, timeout: float = TIMEOUT) -> Sequence[asyncpg.Record]:
    """Run one statement outside any transaction; its rows. A broken connection does not go back to the pool.

    An engine with the execution option TENANTS sees the rows of some tenants only, and the statement has a transaction.
    """
    if (tenants := engine.sync_engine.get_execution_options().get(TENANTS)) is not None:
        return await _fetch_acting(engine, tenants(), sql, args, timeout)
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


async def fetch_for(engine: AsyncEngine, tenant_id: UUID | None, sql: str, *args: Any) -> Sequence[asyncpg.Record]:
    """As `fetch`, where row-level security shows the rows of the tenants in `app.tenants` only; None for no tenant."""
    if tenant_id is None:
        return await fetch(engine, sql, *args)
    return await _fetch_acting(engine, f"{{{tenant_id}}}", sql, args, TIMEOUT)


async def _fetch_acting(
    engine: AsyncEngine, tenants: str, sql: str, args: Sequence[Any], timeout: float
) -> Sequence[asyncpg.Record]:
    async with engine.connect() as connection:
        raw: asyncpg.Connection[asyncpg.Record] | None = (await connection.get_raw_connection()).driver_connection
        if raw is None:
            raise ConnectionError("the pool handed out a connection that is closed")
        try:
            async with raw.transaction():
                await raw.execute(ACT, tenants, timeout=timeout)
                return await raw.fetch(sql, *args, timeout=timeout)
        except BaseException:
            if raw.is_closed():
                await connection.invalidate()
            raise


def unanswered(error: BaseException) -> bool:
    """Whether Postgres may answer the same statement later: gone, starting, full, locked, out of time."""
    import asyncpg  # noqa: PLC0415 - a worker without a database loads none
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

    if isinstance(error, asyncpg.PostgresError):
        # connection, rollback, resources, locks, shutdown, system, internal; 25006: a replica, read-only
        state = str(error.sqlstate or "")
        return state[:2] in {"08", "40", "53", "55", "57", "58", "XX"} or state == "25006"
    if isinstance(error, asyncpg.InterfaceError):
        return not isinstance(error, ValueError)
    return isinstance(error, OSError | TimeoutError | SQLAlchemyError)
