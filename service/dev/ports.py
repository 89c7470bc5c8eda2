"""TCP ports on the loopback: free ones, taken ones, and who took them."""

import contextlib
import random
import socket
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

# below the range that the kernel hands out for outgoing connections, so that a remembered port stays free
CHOICES = range(20_000, 32_000)
LISTEN = "0A"


@dataclass(frozen=True)
class Holder:
    """The process that listens on a port, as far as /proc shows it."""

    pid: int | None
    command: str

    def __str__(self) -> str:
        if self.pid is None:
            return "another process (of another user, so its name cannot be read)"
        return f"process {self.pid} ({self.command})"


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on this port now."""
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def free_port(preferred: int | None = None, avoid: frozenset[int] = frozenset()) -> int:
    """``preferred`` when it is free, else another free port. Raises RuntimeError when none is found."""
    if preferred and preferred not in avoid and is_free(preferred):
        return preferred
    for _ in range(200):
        port = random.choice(CHOICES)  # noqa: S311 - not a secret
        if port not in avoid and is_free(port):
            return port
    raise RuntimeError(f"no free TCP port found on 127.0.0.1 between {CHOICES.start} and {CHOICES.stop - 1}")


def next_free_port(port: int) -> int:
    """The first free port above ``port``: the one a person would try next."""
    return next((other for other in range(port + 1, min(port + 50, 65_536)) if is_free(other)), free_port())


def holder(port: int) -> Holder:
    """Who listens on ``port``."""
    wanted = {f"socket:[{inode}]" for inode in listening_inodes(port)}
    for process in Path("/proc").glob("[0-9]*"):
        if wanted & open_files(process):
            return Holder(int(process.name), command_line(process))
    return Holder(None, "")


def listening_inodes(port: int) -> set[str]:
    inodes: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        fields = [line.split() for line in lines]
        inodes |= {f[9] for f in fields if f[3] == LISTEN and int(f[1].rpartition(":")[2], 16) == port}
    return inodes


def open_files(process: Path) -> set[str]:
    found: set[str] = set()
    with contextlib.suppress(OSError):  # of another user, or gone
        for entry in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(entry.readlink()))
    return found


def command_line(process: Path) -> str:
    try:
        words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "?"
    text = " ".join(words).strip()
    return text if len(text) <= 100 else text[:97] + "..."
