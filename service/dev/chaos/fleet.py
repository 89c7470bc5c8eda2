"""The service as processes: an API and workers, each started, signalled and ended by its id."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import IO, ParamSpec, TypeVar

from service.dev.ports import free_port
from service.dev.server import Server, environment, launched

P = ParamSpec("P")
T = TypeVar("T")

ROOT = Path(__file__).parents[3]
# What is started dies with the *thread* that started it, so that thread lives as long as this process.
_hands = ThreadPoolExecutor(1, thread_name_prefix="starts servers")


async def by_hand(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Starts, stops or kills a server without holding up the loop."""
    return await asyncio.get_running_loop().run_in_executor(_hands, lambda: call(*args, **kwargs))


class Member(Server):
    """One process of the service with its own environment, from the code in `root`.

    Signals but SIGTERM go to all that it started.
    """

    stop_timeout = 45.0

    def __init__(self, name: str, folder: Path, environ: Mapping[str, str]) -> None:
        super().__init__(folder / f"{name}.log")
        self.name = name
        self.environ = dict(environ)
        self.heard = 0
        self.root = ROOT

    def prepare(self) -> None:
        self.heard = self.log.stat().st_size if self.log.exists() else 0

    def _popen(self, output: IO[bytes]) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(  # noqa: S603
            self.command(),
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(**self.environ),
            start_new_session=True,
        )

    def signal(self, number: int) -> None:
        if self.process is None or number == signal.SIGTERM:
            super().signal(number)
        else:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    @property
    def said(self) -> str:
        """What it wrote since it was last started."""
        with self.log.open("rb") as file:
            file.seek(self.heard)
            return file.read().decode(errors="replace")

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def peak_memory(self) -> int:
        """The most memory it had at once, in bytes; 0 when it is gone."""
        try:
            lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        except (OSError, RuntimeError):
            return 0
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)

    def ended(self, timeout: float) -> int:
        """Its exit code, once it has ended. Raises subprocess.TimeoutExpired."""
        if self.process is None:
            raise RuntimeError(f"{self.name} was never started")
        return self.process.wait(timeout)


class Worker(Member):
    """`callboard worker`."""

    def command(self) -> list[str]:
        return launched([sys.executable, "-m", "service", "worker", "-n", f"{self.name}@chaos"])

    def is_ready(self, pid: int) -> bool:
        return "ready" in self.said


class Api(Member):
    """`callboard api`, on a free port."""

    def __init__(self, name: str, folder: Path, environ: Mapping[str, str]) -> None:
        super().__init__(name, folder, environ)
        self.move()

    def move(self) -> None:
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        return launched([sys.executable, "-m", "service", "api", "--port", str(self.port)])

    def is_ready(self, pid: int) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=1)
        try:
            connection.request("GET", "/health/live")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()


class Fleet:
    """One API and any number of workers over one environment; `close` ends them all."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.folder = folder
        self.environ = dict(environ)
        self.workers: list[Worker] = []
        self.api = Api("api", folder, environ)

    @property
    def members(self) -> list[Member]:
        return [self.api, *self.workers]

    async def start_api(self, **environ: str) -> Api:
        """Starts the API, with these settings beside the fleet's own."""
        self.api.environ |= environ
        await by_hand(self.api.start)
        return self.api

    async def start_worker(self, **environ: str) -> Worker:
        """Starts one more worker, with these settings beside the fleet's own, and waits until it is ready."""
        worker = Worker(f"w{len(self.workers) + 1}", self.folder, self.environ | environ)
        self.workers.append(worker)
        await by_hand(worker.start)
        return worker

    async def end_workers(self) -> None:
        """Kills every worker and forgets it."""
        for worker in self.workers:
            await by_hand(worker.kill)
        self.workers = []

    async def close(self) -> None:
        for member in self.members:
            await by_hand(member.kill)
