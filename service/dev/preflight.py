"""What `callboard up` checks before it starts anything: settings, folder, loopback, and servers that others run."""

import asyncio
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from service.dev import ports
from service.dev.plan import LOOPBACK
from service.settings import Settings, SettingsError

RESPONSE_SECONDS = 5.0
MAX_PORT = 65_535
REDIS_NAMES = ("REDIS_URL", "CELERY_BROKER_URL")
RESULTS = "CELERY_RESULT_BACKEND"


class CannotStart(RuntimeError):
    """What is wrong and what to do about it."""


def check_settings(environ: Mapping[str, str], workers: int) -> Settings:
    """Read the settings that every process will have. Raises CannotStart, in one line that names every wrong one."""
    from service.domains.sender_policy import house_of  # noqa: PLC0415 - only a start needs it

    try:
        settings = Settings.from_env(environ)
        house_of(settings)
    except SettingsError as error:
        raise CannotStart(f"settings are wrong: {'; '.join(error.faults)}") from None
    if settings.worker_health_port:
        _check_health_ports(settings.worker_health_port, workers)
    return settings


def _check_health_ports(first: int, workers: int) -> None:
    last = first + workers - 1
    if last > MAX_PORT:
        raise CannotStart(f"WORKER_HEALTH_PORT: {workers} workers need ports up to {last}; choose a lower one")
    for port in range(first, last + 1):
        if not ports.is_free(port, LOOPBACK):
            raise CannotStart(
                f"WORKER_HEALTH_PORT: port {port} is taken by {ports.holder(port)}; each of {workers} workers needs one"
                f" from {first} on: choose another, or unset it"
            )


def use_folder(data: Path) -> None:
    """Make the data folder, if it is not there, and write to it. Raises CannotStart where that is not possible."""
    probe = data / f".write.{os.getpid()}"
    try:
        data.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        said = "it is a file" if isinstance(error, FileExistsError | NotADirectoryError) else error.strerror
        raise CannotStart(
            f"{data} cannot hold the data: {said}. Name a folder that can be written with --data"
        ) from None


def check_loopback() -> None:
    """Connect to ourselves. Raises CannotStart where the loopback interface does not work."""
    with socket.socket() as server:
        try:
            server.bind((LOOPBACK, 0))
            server.listen(1)
            socket.create_connection(server.getsockname(), timeout=RESPONSE_SECONDS).close()
        except OSError as error:
            raise CannotStart(
                f"{LOOPBACK} cannot be reached: {error.strerror or error}. Bring the loopback interface up:"
                " ip link set lo up"
            ) from None


async def check_redis(environ: Mapping[str, str]) -> None:
    """Ping the Redis servers that the environment names. Raises CannotStart for one that does not respond."""
    broker = next((name for name in REDIS_NAMES if environ.get(name)), None)
    for name in (broker, RESULTS):
        url = environ.get(name or "", "")
        if urlsplit(url).scheme in ("redis", "rediss", "unix", "redis+socket", "sentinel"):
            await _ping(str(name), url)


async def _ping(name: str, url: str) -> None:
    from redis.exceptions import RedisError  # noqa: PLC0415 - only where the environment names a server

    from callboard_workers.redis import address  # noqa: PLC0415

    client = address.async_client(url, socket_timeout=RESPONSE_SECONDS, socket_connect_timeout=RESPONSE_SECONDS)
    try:
        async with asyncio.timeout(RESPONSE_SECONDS):
            await client.ping()
    except (RedisError, OSError, TimeoutError) as error:
        where = urlsplit(url)
        said = str(error).rstrip(".") or "no response"
        raise CannotStart(
            f"Redis at {where.hostname or where.path}:{where.port or 6379} ({name}) does not respond: {said}."
            f" Start it, or unset {name}: `up` then runs one of its own"
        ) from None
    finally:
        await client.aclose()
