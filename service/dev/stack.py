"""PostgreSQL and Valkey together: what `callboard up`, the tests and the benchmarks all stand on."""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO

from service.dev.ports import free_port
from service.dev.postgres import Postgres
from service.dev.valkey import Valkey

THROWAWAY_PREFIX = "callboard-stack-"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a private directory is made in it
ENOUGH = 2 * 1024**3  # bytes free before test data goes to memory: a container has 64 MB there


class DataInUse(RuntimeError):
    """Another process works on this data directory."""


class Lock:
    """A data directory is used by one process at a time; the kernel frees it when that process dies."""

    def __init__(self, data: Path) -> None:
        self.path = data / "lock"
        self.file: IO[str] | None = None

    def acquire(self) -> None:
        """Raises DataInUse, which names the process that has it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "?"
            file.close()
            raise DataInUse(f"{self.path.parent} is in use by process {holder}") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self.file = file

    def release(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None


class Ports:
    """The ports of a data directory: the same ones again as long as they are free."""

    def __init__(self, data: Path) -> None:
        self.path = data / "ports.json"
        try:
            self.known: dict[str, int] = json.loads(self.path.read_text())
        except (OSError, ValueError):
            self.known = {}

    def take(self, name: str) -> int:
        """A port for ``name`` that nothing listens on and no other name has."""
        others = frozenset(port for other, port in self.known.items() if other != name)
        self.known[name] = free_port(self.known.get(name), others)
        return self.known[name]

    def save(self) -> None:
        self.path.write_text(json.dumps(self.known, indent=2) + "\n")


class Stack:
    """Both servers on one data directory. Start and stop it from a thread that lives as long as it should run."""

    def __init__(self, data: Path, *, throwaway: bool = False) -> None:
        self.data = data.absolute()
        self.lock = Lock(self.data)
        self.throwaway = throwaway
        ports = Ports(self.data)
        logs = self.data / "logs"
        self.postgres = Postgres(
            self.data / "postgres", port=ports.take("postgres"), log=logs / "postgres.log", throwaway=throwaway
        )
        self.valkey = Valkey(self.data / "valkey", port=ports.take("valkey"), log=logs / "valkey.log")
        self.ports = ports

    @property
    def database_url(self) -> str:
        """``postgresql://…`` of the database ``callboard``."""
        return self.postgres.url()

    @property
    def redis_url(self) -> str:
        return self.valkey.url

    def start(self) -> None:
        """Starts both, side by side, and waits until both answer. Raises DataInUse, ServerFailed, MissingServer."""
        self.lock.acquire()
        try:
            self.valkey.spawn()
            self.postgres.start()
            self._await_valkey()
        except BaseException:
            self.stop()
            raise
        self.ports.known |= {"postgres": self.postgres.port, "valkey": self.valkey.port}
        self.ports.save()

    def _await_valkey(self) -> None:
        if self.valkey.process is not None and self.valkey.process.poll() is None:
            self.valkey.wait()
        else:  # its port went to somebody else in the meantime
            self.valkey.move()
            self.valkey.start()

    def stop(self) -> None:
        self.valkey.stop()
        self.postgres.stop()
        self.lock.release()

    def __enter__(self) -> "Stack":
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


@contextmanager
def throwaway_stack() -> Iterator[Stack]:
    """A stack on a temporary directory, in memory where there is room; gone afterwards, with what killed ones left."""
    parent = temporary_parent()
    sweep(parent)
    data = Path(tempfile.mkdtemp(prefix=THROWAWAY_PREFIX, dir=parent))
    data.chmod(0o711)  # PostgreSQL may have to run as nobody
    try:
        with Stack(data, throwaway=True) as stack:
            yield stack
    finally:
        shutil.rmtree(data, ignore_errors=True)


def temporary_parent() -> Path:
    """Memory when there is enough of it: making a database is several times faster there than on a disk."""
    if SHARED_MEMORY.is_dir() and os.access(SHARED_MEMORY, os.W_OK) and shutil.disk_usage(SHARED_MEMORY).free > ENOUGH:
        return SHARED_MEMORY
    return Path(tempfile.gettempdir())


def sweep(parent: Path) -> None:
    """Removes throwaway directories whose process was killed."""
    for data in parent.glob(THROWAWAY_PREFIX + "*"):
        lock = Lock(data)
        try:
            if (data / "lock").exists():
                lock.acquire()
                shutil.rmtree(data, ignore_errors=True)
        except (DataInUse, OSError):
            continue
        finally:
            lock.release()
