"""`callboard api`: granian with the application, quiet where ours speaks, and gone within 3 seconds of SIGTERM."""

import errno
import os
import socket
import time
from typing import Any

import click
import structlog
from granian import Granian
from granian.constants import Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels

from service.core import logging
from service.settings import Settings

log = structlog.get_logger("service.cli.api_server")

STOP_WITHIN = 3  # seconds
STOP_POLL = 0.01  # seconds
HEADERS_WITHIN = 15_000  # milliseconds
QUIET: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {},
    "handlers": {},
    "loggers": {
        "_granian": {"handlers": [], "propagate": True},
        "granian.access": {"handlers": [], "propagate": False},
    },
}


def run(settings: Settings, host: str | None = None, port: int | None = None, processes: int | None = None) -> None:
    """Serve until SIGTERM or SIGINT; None takes the setting. Raises ClickException where nobody could listen."""
    logging.configure(settings, "api")
    where = (host or settings.api_host, port or settings.api_port)
    if error := refusal(*where):
        raise click.ClickException(f"Nobody can listen on {where[0]} port {where[1]}: {error}.")
    if "SECRET_KEY" not in os.environ:
        os.environ["SECRET_KEY"] = settings.secret_key  # at least one for all of these processes
        log.warning("secret_key_missing", hint="set SECRET_KEY: cursors and links end with this process")
    if is_taken(*where):  # the system would share the connections out between the two, whatever database each has
        log.warning("port_shared", port=where[1], hint="another process listens there too: requests go to either")
    log.info("api_listening", url=f"http://{where[0]}:{where[1]}")
    Server(
        "service.app:serve",
        address=where[0],
        port=where[1],
        interface=Interfaces.ASGI,
        factory=True,
        workers=processes or settings.api_processes,
        loop=Loops.uvloop,
        http1_settings=HTTP1Settings(header_read_timeout=HEADERS_WITHIN),
        websockets=True,
        log_access=False,
        log_level=LogLevels.warning,
        log_dictconfig=QUIET,
        respawn_failed_workers=True,
        respawn_interval=1.0,
        workers_kill_timeout=1,  # after `Server` has waited
        process_name=None,
    ).serve()


class Server(Granian):  # type: ignore[valid-type, misc]  # an alias, of its server for this kind of interpreter
    """Granian, but a process that is just ending when it is looked at has not "refused to gracefully stop"."""

    def _stop_workers(self) -> None:
        """Stop the processes, and look again until they are gone; only one that is left then is killed."""
        for process in self.wrks:
            process.terminate()
        deadline = time.monotonic() + STOP_WITHIN
        while any(process.is_alive() for process in self.wrks) and time.monotonic() < deadline:
            time.sleep(STOP_POLL)
        super()._stop_workers()


def refusal(host: str, port: int) -> str:
    """Tell why a server cannot listen there now, and what to do; empty where it can, also beside one that shares."""
    try:
        family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as granian does
            probe.bind(address)  # and no more: one that listened would be given connections of a server beside it
    except OSError as error:
        said = error.strerror or str(error)
        match error.errno:
            case errno.EADDRINUSE:
                return f"{said}. Stop who has it, or choose another port with --port or API_PORT"
            case errno.EACCES:
                return f"{said}. Ports below 1024 are the administrator's: choose another with --port or API_PORT"
            case _:
                return f"{said}. --host or API_HOST is to be an address of this machine, or 0.0.0.0 for all of them"
    return ""


def is_taken(host: str, port: int) -> bool:
    """Tell whether somebody listens there already."""
    try:
        socket.create_connection(("127.0.0.1" if host == "0.0.0.0" else host, port), timeout=0.5).close()  # noqa: S104
    except OSError:
        return False
    return True
