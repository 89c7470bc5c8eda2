"""Bring a database's tables up to date; the migrations travel inside the installed package."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

import service
from service.db.engine import address, cause
from service.db.row_security import RolesMissing

if TYPE_CHECKING:
    from collections.abc import Callable

    import sqlalchemy as sa
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from service.settings import Settings


TABLES = "SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = current_schema() ORDER BY tablename"
TRIES = 10
"""How often a migration is tried that meets the traffic in a deadlock."""


class NewerSchema(RuntimeError):
    """The database has a revision that this version does not know."""


def folder() -> Path:
    """Where the migrations lie: beside the sources in a checkout, inside the package once installed."""
    package = Path(service.__file__).resolve().parent
    return installed if (installed := package / "_migrations").is_dir() else package.parent / "migrations"


def config() -> Config:
    """Alembic's configuration, without a file."""
    made = Config()
    made.set_main_option("script_location", str(folder()).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    return made


def head() -> str:
    """The revision this code needs."""
    revision = ScriptDirectory.from_config(config()).get_current_head()
    if revision is None:
        raise RuntimeError(f"no migrations in {folder()}")
    return revision


def revisions() -> set[str]:
    """The revisions this code knows."""
    return {script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()}


async def current(engine: AsyncEngine) -> str | None:
    """The revision the database has; None if it was never migrated."""
    async with engine.connect() as connection:
        return await connection.run_sync(lambda plain: MigrationContext.configure(plain).get_current_revision())


def run(settings: Settings, revision: str = "head", say: Callable[[str], object] = lambda _: None) -> int:
    """Migrate the database of `settings` and say what was done; the exit code, 1 if the database cannot be reached."""
    try:
        before, after = asyncio.run(_up(settings.database_url, revision))
    except (RolesMissing, NewerSchema) as error:
        say(str(error))
        return 1
    except (OSError, DBAPIError) as error:
        say(f"the database could not be migrated: {error}\nis Postgres up, and does DATABASE_URL name it?")
        return 1
    say(f"the database is at {after}" + ("" if before == after else f" (it was at {before or 'nothing'})"))
    return 0


async def _up(database_url: str, revision: str) -> tuple[str | None, str | None]:
    where, arguments = address(database_url)
    engine = create_async_engine(where, poolclass=NullPool, connect_args=arguments | {"timeout": 10})
    try:
        before = await current(engine)
        if before is not None and before not in revisions():
            raise NewerSchema(
                f"the database is at revision {before}, which this version does not know: a newer version, or another"
                " branch, migrated it. Run that one, or use another database"
            )
        await upgrade(engine, revision)
        return before, await current(engine)
    finally:
        await engine.dispose()


async def upgrade(engine: AsyncEngine, revision: str = "head") -> None:
    """Migrate up, all in one transaction; a second one at the same time waits and finds nothing to do."""
    await _with(engine, lambda made: command.upgrade(made, revision))


async def downgrade(engine: AsyncEngine, revision: str) -> None:
    """Migrate down to `revision` (`base`: drop everything), all in one transaction."""
    await _with(engine, lambda made: command.downgrade(made, revision))


async def _with(engine: AsyncEngine, run: Callable[[Config], None]) -> None:
    """Again after a deadlock with the traffic, which rolled all of it back: then with every table locked first."""

    def inside(connection: sa.Connection) -> None:
        made = config()
        made.attributes["connection"] = connection
        run(made)

    for number in range(TRIES):
        try:
            async with engine.begin() as connection:
                if number:
                    await _lock_all(connection)
                await connection.run_sync(inside)
        except DBAPIError as error:
            if number == TRIES - 1 or not isinstance(cause(error), asyncpg.DeadlockDetectedError):
                raise
            await asyncio.sleep(random.uniform(0.1, 1.0))  # noqa: S311 - jitter
        else:
            return


async def _lock_all(connection: AsyncConnection) -> None:
    """All at once, before anything is held that somebody else may wait for."""
    names = (await connection.execute(text(TABLES))).scalars().all()
    await connection.execute(text(f"LOCK TABLE {', '.join(names)} IN ACCESS EXCLUSIVE MODE"))
