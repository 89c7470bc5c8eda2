"""Brings the database of `up` to the newest schema; takes no time when it is there already."""

import asyncio
import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

import service
from service.dev.server import ServerFailed

PACKAGE = Path(service.__file__).parent
TABLE = "SELECT to_regclass('alembic_version') IS NOT NULL"  # asked first: a missing table is an ERROR in Postgres' log
VERSION = "SELECT version_num FROM alembic_version"


def plain(url: str) -> str:
    """The URL without SQLAlchemy's driver name."""
    return url.replace("postgresql+asyncpg://", "postgresql://", 1)


def versions() -> Path:
    """Where the migrations are: beside the package in a checkout, in it when installed."""
    installed = PACKAGE / "_migrations/versions"
    return installed if installed.is_dir() else PACKAGE.parent / "migrations/versions"


def fingerprint(folder: Path) -> str:
    """Changes with every change of a migration."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.py")):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


async def current(url: str) -> str | None:
    """The revision the database is at, None when it has none. Raises ServerFailed when it does not answer."""
    try:
        connection = await asyncpg.connect(plain(url), timeout=10)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        where = urlsplit(url)
        raise ServerFailed(
            f"The database at {where.hostname}:{where.port or 5432} does not let us in: {error}. Check DATABASE_URL."
        ) from error
    try:
        found = await connection.fetchval(VERSION) if await connection.fetchval(TABLE) else None
    finally:
        await connection.close()
    return None if found is None else str(found)


class Schema:
    """Remembers in ``note`` which revision the migrations at hand lead to, so that nothing is loaded to compare."""

    def __init__(self, note: Path) -> None:
        self.note = note

    async def is_newest(self, url: str) -> bool:
        """Raises ServerFailed when the database does not answer."""
        found = await current(url)
        try:
            known = json.loads(self.note.read_text())
        except (OSError, ValueError):
            return False
        return bool(found == known.get("revision") and known.get("migrations") == fingerprint(versions()))

    async def migrate(self, environment: Mapping[str, str]) -> str:
        """Runs ``callboard migrate`` and returns what it said. Raises ServerFailed with that when it failed."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "service", "migrate"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
        )
        said = (await process.communicate())[0].decode(errors="replace").strip()
        if process.returncode != 0:
            last = said.splitlines()[-1] if said else f"it ended with code {process.returncode}"
            raise ServerFailed(f"`callboard migrate` failed: {last} (or another folder, with --data).")
        revision = await current(environment["DATABASE_URL"])
        self.note.write_text(json.dumps({"migrations": fingerprint(versions()), "revision": revision}) + "\n")
        return said
