"""The whole service as processes, for journeys: the API under granian, Celery workers, and what becomes of them."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from service.access import keys
from service.db import engine as db
from service.settings import Settings

ROOT = Path(__file__).parents[2]
SECRET = "a secret of the journeys only"
PATIENT = {"DB_CONNECT_TIMEOUT": "20", "DB_POOL_TIMEOUT": "20", "DB_ACCEPT_TIMEOUT": "20", "DB_STATEMENT_TIMEOUT": "20"}
"""A busy machine is no outage."""


class House:
    """Processes over one database and one Valkey; everything it started is ended with it."""

    def __init__(self, folder: Path, database: str, redis_url: str, **environ: str) -> None:
        self.folder = folder
        self.root = ROOT
        self.port = free_port()
        self.environ = {
            "DATABASE_URL": database,
            "REDIS_URL": redis_url,
            "SECRET_KEY": SECRET,
            "API_PORT": str(self.port),
            "LOG_FORMAT": "json",
            "MAIL_FROM": "Academy <hello@academy.example>",
            **PATIENT,
            **environ,
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        """Where the API is."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, name: str, *command: str) -> None:
        """Starts a process of this interpreter; its output goes to a file of its name."""
        environ = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=self.root,
                env=environ | self.environ,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def start_api(self) -> None:
        """Starts the API and waits until it is ready."""
        self.start("api", "service", "api")
        async with httpx.AsyncClient(timeout=10) as client:
            await self.eventually(lambda: _ready(client, f"{self.url}/health/live"), "the API answers")

    async def start_worker(self, name: str = "worker", *arguments: str) -> None:
        """Starts a Celery worker and waits until it says that it is ready."""
        before = self.log(name)
        self.start(name, "celery", "-A", "service", "worker", "-n", f"{name}@journey", *arguments)

        async def ready() -> bool:
            return "ready" in self.log(name)[len(before) :]

        await self.eventually(ready, f"{name} is ready")

    def log(self, name: str) -> str:
        """What a process wrote so far."""
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    async def key(self, tenant: str = "academy", scopes: Sequence[str] = ("*",), **more: Any) -> str:
        """An API key, with every scope of an app unless others are named."""
        engine = db.create_engine(Settings.from_env(self.environ))
        async with db.transaction(db.sessions(engine)) as session:
            _, text = await keys.create(session, tenant, scopes, **more)
        await engine.dispose()
        return text

    async def eventually(self, condition: Any, what: str, timeout: float = 60.0) -> Any:
        """Waits until the condition holds and returns what it returned. Raises AssertionError with the logs' ends."""
        deadline = time.monotonic() + timeout
        while not (found := await condition()):
            dead = [name for name, process in self.processes.items() if process.poll() is not None]
            if dead or time.monotonic() > deadline:
                ends = "\n".join(f"--- {name}\n{self.log(name)[-3000:]}" for name in self.processes)
                raise AssertionError(f"not within {timeout} s: {what}; ended: {dead}\n{ends}")
            await asyncio.sleep(0.05)
        return found

    def kill(self, name: str) -> None:
        """Ends a process as a crash would."""
        process = self.processes.pop(name)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self, name: str, timeout: float = 60.0) -> int:
        """Asks a process to end (SIGTERM); its exit code."""
        process = self.processes.pop(name)
        process.terminate()
        try:
            return process.wait(timeout)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Ends whatever still runs."""
        for name in list(self.processes):
            self.kill(name)


@asynccontextmanager
async def house(folder: Path, database: str, redis_url: str, **environ: str) -> AsyncIterator[House]:
    """A house without a process yet."""
    made = House(folder, database, redis_url, **environ)
    try:
        yield made
    finally:
        made.close()


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


async def _ready(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url)).status_code == 200
    except httpx.TransportError:
        return False
