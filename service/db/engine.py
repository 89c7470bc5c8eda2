"""Postgres for the service: the declarative base, the engine of one loop, sessions, and the transaction boundary."""

import asyncio
import errno
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import asyncpg
from sqlalchemy import MetaData, event
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from callboard_workers.errors import NoRuntime
from callboard_workers.runtime import Runtime
from service.db.tenancy import API, WORKER, Role, confine
from service.settings import Settings

Sessions = async_sessionmaker[AsyncSession]

NAMES = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """The base of every table of the service; constraint names follow one convention."""

    metadata = MetaData(naming_convention=NAMES)


def address(database_url: str) -> tuple[URL, dict[str, Any]]:
    """Turn any `postgres(ql)://` URL into SQLAlchemy's asyncpg URL and its connect arguments.

    libpq's `sslmode` becomes asyncpg's `ssl`, so the URL a hosting provider hands out works as it is.
    """
    found = make_url(database_url).set(drivername="postgresql+asyncpg")
    arguments: dict[str, Any] = {}
    if (mode := found.query.get("sslmode")) is not None:
        arguments["ssl"] = mode
        found = found.difference_update_query(["sslmode"])
    return found, arguments


def create_engine(
    settings: Settings,
    *,
    application: str = "callboard",
    pool_timeout: float = 30.0,
    statement_timeout: float = 30.0,
    ping_after: float | None = None,
    role: Role | None = WORKER,
) -> AsyncEngine:
    """Make the engine of the running loop; call it on the loop that uses it, never before a fork.

    It acts as `role` where DB_SET_ROLE is on; the API's role sees only the rows that `service.db.tenancy` allows. With
    None it acts as the user of DATABASE_URL, for commands that run before the tables exist.

    `pool_timeout` and `statement_timeout` are in seconds. A connection that the server closed is noticed at checkout
    without a round trip, so a restart of Postgres costs no failed request once it is back. With `ping_after`, one that
    is checked out when Postgres was not heard of for so many seconds has to answer within DB_CONNECT_TIMEOUT first:
    otherwise a frozen server, or a line that swallows everything, holds the caller up for a whole statement timeout.
    """
    where, arguments = address(settings.database_url)
    session: dict[str, str] = {}  # a pooler takes none: there they are settings of the user
    if not settings.db_pooler:
        timeouts = {"statement_timeout": statement_timeout, "idle_in_transaction_session_timeout": 60.0}
        session = {name: str(int(seconds * 1000)) for name, seconds in timeouts.items()}
        if role is not None and settings.db_set_role:
            session["role"] = role
    engine = create_async_engine(
        where,
        pool_size=settings.db_pool_size,
        max_overflow=0,
        pool_timeout=pool_timeout,
        pool_recycle=1800,
        hide_parameters=True,  # an error is logged; what a caller sent is not
        connect_args=arguments
        | {
            "timeout": settings.db_connect_timeout,
            "command_timeout": statement_timeout + 1.0,
            "server_settings": {"application_name": application, "timezone": "UTC", **session},
        },
    )
    if role == API:
        confine(engine)
    _Pulse(ping_after, settings.db_connect_timeout).watch(engine.sync_engine)
    return engine


class _Pulse:
    """Knows when Postgres was last heard of, whichever connection it was, and asks a silent one before it is used."""

    def __init__(self, ping_after: float | None, patience: float) -> None:
        self._ping_after = ping_after
        self._patience = patience
        self._heard = 0.0

    def watch(self, engine: Engine) -> None:
        """Listen to the engine's pool."""
        event.listen(engine, "checkout", self._checkout)
        event.listen(engine, "connect", self._hear)
        event.listen(engine, "checkin", self._hear)

    def _hear(self, dbapi_connection: Any, _record: Any) -> None:
        if dbapi_connection is not None:  # None: it failed and is gone
            self._heard = time.monotonic()

    def _checkout(self, dbapi_connection: Any, record: Any, _proxy: Any) -> None:
        driver: asyncpg.Connection = dbapi_connection.driver_connection
        if driver.is_closed():
            raise DisconnectionError
        if self._ping_after is None or time.monotonic() - self._heard < self._ping_after:
            return
        try:
            dbapi_connection.run_async(lambda connection: connection.execute("SELECT 1", timeout=self._patience))
        except (TimeoutError, asyncio.CancelledError):
            driver.terminate()  # a polite farewell would wait for the same silence
            raise
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise DisconnectionError from error
        self._hear(dbapi_connection, record)


def sessions(engine: AsyncEngine) -> Sessions:
    """Make sessions on `engine`; nothing is expired at commit, nothing is flushed behind your back but at commit."""
    return async_sessionmaker(engine, expire_on_commit=False)


def transaction(maker: Sessions) -> AbstractAsyncContextManager[AsyncSession]:
    """Open the one transaction of a boundary: commits at the end, rolls back on any error.

    A failed COMMIT raises; whether it took effect is then unknown to anybody but Postgres.
    """
    return maker.begin()


async def session() -> AsyncIterator[AsyncSession]:
    """Provide an actor with the transaction of its attempt: `session: Annotated[AsyncSession, Depends(session)]`.

    It commits when the attempt ends well and rolls back when it does not. Raises NoRuntime without a database.
    """
    engine = Runtime.of_loop().engine
    if engine is None:
        raise NoRuntime("this Runtime was made without an engine: it has no sessions")
    async with transaction(sessions(engine)) as opened:
        yield opened


def is_away(error: BaseException) -> bool:
    """Tell whether `error` means that Postgres cannot serve now: gone, starting, full, locked, out of connections."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or (error.orig is not None and is_away(cause(error)))
    if isinstance(error, asyncpg.InterfaceError):
        return "closed" in str(error)
    return isinstance(error, AWAY) or (isinstance(error, OSError) and _has_no_way(error))


def _has_no_way(error: OSError) -> bool:
    # asyncio's sum of several addresses has no number
    return isinstance(error, socket.gaierror) or error.errno in (None, *NO_WAY)


def is_older(error: BaseException) -> bool:
    """Tell whether `error` means that a table, a column or a role is missing: the migrations were not run."""
    found = cause(error)
    if isinstance(found, asyncpg.InvalidParameterValueError):
        return str(found).startswith('role "callboard_')
    return isinstance(
        found, asyncpg.UndefinedTableError | asyncpg.UndefinedColumnError | asyncpg.UndefinedFunctionError
    )


def cause(error: BaseException) -> BaseException:
    """Return asyncpg's own exception inside one of SQLAlchemy's; any other exception as it is."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig.__cause__ or error.orig
    return error


NO_WAY = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN, errno.EADDRNOTAVAIL, errno.EMFILE)
AWAY: tuple[type[BaseException], ...] = (
    PoolTimeout,
    DisconnectionError,
    ConnectionError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresSystemError,
    asyncpg.LockNotAvailableError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.TransactionRollbackError,
    asyncpg.InternalClientError,
)
