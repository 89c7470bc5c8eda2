"""PostgreSQL on a data directory of its own, started directly from its wheel."""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path

from service.dev import binaries
from service.dev.identity import Identity, give, identity, nobody, sheltered, sheltered_copy
from service.dev.ports import free_port
from service.dev.server import POLL, Server, ServerFailed, environment, launched

USER = "callboard"
DATABASE = "callboard"
SERVICE = "callboard_service"  # owns the database, and is no superuser: what the service needs, and no more
PROC = Path("/proc")
ORPHAN_TIMEOUT = 10.0  # seconds
STATUS_LINE = 7  # of postmaster.pid, counted from 0: "ready" once connections are taken
# a random password of 128 bits needs no stretching, and every connection pays for it
INITIAL = {"scram_iterations": "1"}
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    # no socket files: their paths may have 107 bytes at most, and a killed server leaves them behind
    "unix_socket_directories": "",
    "max_connections": "200",
    "log_checkpoints": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
# nothing here weakens what survives the death of a *process*: commits are still written before they are answered
THROWAWAY = {
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "io_method": "sync",
    "dynamic_shared_memory_type": "mmap",  # within the data, which goes: segments of a killed server would stay
    "jit": "off",
}


class Postgres(Server):
    """One PostgreSQL server. ``throwaway`` trades the survival of a power cut for speed: for tests only."""

    name = "postgres"

    def __init__(
        self, data: Path, *, port: int | None = None, log: Path | None = None, throwaway: bool = False
    ) -> None:
        super().__init__(log or data.with_name("postgres.log"))
        self.home = binaries.postgres_home()
        self.given = data.absolute()
        self.data = self.given
        self.port = port or free_port()
        self.settings = SETTINGS | (THROWAWAY if throwaway else {})
        # fast: rolls back and writes a checkpoint; immediate: as if it had crashed
        self.stop_signal = signal.SIGQUIT if throwaway else signal.SIGINT
        self.password_file = self.given.with_name("postgres.password")
        self.service_password_file = self.given.with_name("postgres.service.password")

    @property
    def password(self) -> str:
        return self.password_file.read_text().strip()

    def url(self, database: str = DATABASE) -> str:
        """``postgresql://…``, password included; only after :meth:`prepare`."""
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def service_url(self) -> str:
        """``postgresql://…`` of the database for the service itself, as an ordinary user.

        As the superuser where an earlier version created the data.
        """
        if not self.service_password_file.exists():
            return self.url()
        return (
            f"postgresql://{SERVICE}:{self.service_password_file.read_text().strip()}@127.0.0.1:{self.port}/{DATABASE}"
        )

    def move(self) -> None:
        self.port = free_port()

    def prepare(self) -> None:
        who = identity()
        if who == "nobody":
            self.home, self.data = sheltered_copy(self.home), sheltered(self.given)
        self.data.parent.mkdir(parents=True, exist_ok=True, mode=0o755 if who == "nobody" else 0o777)
        if not (self.data / "PG_VERSION").exists():
            self._create(who)
        uid, gid = nobody() if who == "nobody" else (os.geteuid(), os.getegid())
        give(self.data, uid, gid)
        clear_stale(self.data)

    def command(self) -> list[str]:
        options = [f"{name}={value}" for name, value in self.settings.items()]
        flags = [part for option in options for part in ("-c", option)]
        program = [str(self.home / "bin/postgres"), "-D", str(self.data), "-p", str(self.port)]
        return launched([*program, *flags], stop_signal=self.stop_signal, identity=identity())

    def is_ready(self, pid: int) -> bool:
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        # what pg_ctl looks at too, and cheaper than a connection
        return len(lines) > STATUS_LINE and lines[0] == str(pid) and lines[STATUS_LINE].strip() == "ready"

    def _create(self, who: Identity) -> None:
        """A new cluster and its database, whole or not at all."""
        draft = self.data.with_name(self.data.name + ".new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        secret = draft.with_name("postgres.secret") if who == "nobody" else self.password_file
        write_private(secret, secrets.token_hex(16))
        if who == "nobody":
            for path in (draft, secret):
                os.chown(path, *nobody())
        self._run("initdb", "-D", str(draft), *initdb_options(secret))
        password = secrets.token_hex(16)
        queries = (
            f"CREATE ROLE {SERVICE} LOGIN CREATEROLE PASSWORD '{password}'\nCREATE DATABASE {DATABASE} OWNER {SERVICE}"
        )
        self._run("postgres", "--single", "-D", str(draft), "postgres", query=queries)
        write_private(self.service_password_file, password)
        if secret != self.password_file:
            write_private(self.password_file, secret.read_text())
            secret.unlink()
        shutil.rmtree(self.data, ignore_errors=True)
        draft.rename(self.data)

    def _run(self, program: str, *arguments: str, query: str | None = None) -> None:
        done = subprocess.run(  # noqa: S603
            launched([str(self.home / "bin" / program), *arguments], stop_signal=signal.SIGKILL, identity=identity()),
            input=query,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd="/",  # nobody may not be allowed to stand where we stand
            env=environment(LC_ALL="C", TZ="UTC"),
        )
        if done.returncode != 0 or "FATAL:" in done.stdout or "ERROR:" in done.stdout:
            raise ServerFailed(f"{program} failed while making {self.data}:\n{done.stdout.strip()}")


def initdb_options(secret: Path) -> list[str]:
    settings = [part for name, value in INITIAL.items() for part in ("--set", f"{name}={value}")]
    # builtin: the same order and case on every machine, whatever locales it has
    locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "-E", "UTF8"]
    return ["-U", USER, "-A", "scram-sha-256", f"--pwfile={secret}", "--no-sync", *locale, *settings]


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner may read, whole or not at all."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text + "\n")
    draft.replace(path)


def clear_stale(data: Path) -> None:
    """Removes a postmaster.pid whose server is gone. Raises ServerFailed when something still runs on ``data``.

    PostgreSQL trusts the pid as long as *any* process of ours has it; after a restart of the machine or in a
    container that is often another program. Every PostgreSQL process works in its data directory: that decides,
    and it also shows the sessions of a killed server, which must be gone before the file with its interlock is.
    """
    lock = data / "postmaster.pid"
    if not lock.exists() or not (PROC / "self/cwd").exists():
        return
    deadline = time.monotonic() + ORPHAN_TIMEOUT
    while pids := living_in(data):
        if first_line(lock) in pids or time.monotonic() > deadline:
            stop = " ".join(map(str, pids))
            raise ServerFailed(f"PostgreSQL already runs on {data}. Stop it with: kill -INT {stop}")
        time.sleep(POLL)
    lock.unlink(missing_ok=True)


def first_line(lock: Path) -> int:
    try:
        return int(lock.read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return 0


def living_in(folder: Path) -> list[int]:
    """The processes whose working directory is ``folder``."""
    found = []
    for process in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink() == folder.resolve():
                found.append(int(process.name))
    return found
