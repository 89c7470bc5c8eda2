"""How Alembic reaches the database: one at a time, in one transaction, over asyncpg.

The URL comes from `config.attributes["url"]` (set by `service.db.migrate`), from `-x url=…` or from DATABASE_URL.
You can pass an open connection as `config.attributes["connection"]`.
"""

from __future__ import annotations

import asyncio
import os

import sqlalchemy as sa
from alembic import context
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from service.db.engine import address

LOCK = 0x43414C4C424F4152  # any constant: two migrations at once wait for each other


def _url() -> str:
    text = (
        context.config.attributes.get("url")
        or context.get_x_argument(as_dictionary=True).get("url")
        or os.environ.get("DATABASE_URL")
    )
    if not text:
        raise SystemExit("no database: set DATABASE_URL=postgresql://user:password@host/name, or pass -x url=…")
    return str(text)


def _run(connection: sa.Connection) -> None:
    connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    context.configure(connection=connection, target_metadata=None, transaction_per_migration=False)
    with context.begin_transaction():
        context.run_migrations()


async def _connect() -> None:
    where, arguments = address(_url())
    engine = create_async_engine(where, poolclass=NullPool, connect_args=arguments | {"timeout": 10})
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_run)
    finally:
        await engine.dispose()


def main() -> None:
    if context.is_offline_mode():
        context.configure(dialect_name="postgresql", literal_binds=True)
        with context.begin_transaction():
            context.run_migrations()
    elif (connection := context.config.attributes.get("connection")) is not None:
        _run(connection)
    else:
        asyncio.run(_connect())


main()
