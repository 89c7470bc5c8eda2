"""`callboard worker --processes N`: a parent that keeps N workers running, one for each core it is given.

Every worker is a process of its own with a node name of its own (`w1@host` … `wN@host`), so `celery inspect` and Flower
see N workers. Signals go to all of them; one that ends, or whose loop stands still, is started again.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence

import structlog

from service.core import logging
from service.settings import Settings

log = structlog.get_logger("service.cli.worker_supervisor")

BACKOFF = (1.0, 30.0)  # seconds before a worker starts again, doubled each time
BRIEF = 5.0  # seconds; a worker that ends sooner, even in good order, waits before it starts again
STEADY = 60.0  # seconds after which a worker counts as well again
ASK_EVERY = 5.0  # seconds between two questions whether a loop turns
SILENT = 6  # questions in a row without an answer, of a worker that has answered before
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
PR_SET_PDEATHSIG = 1


class Worker:
    """One place in the fleet: its process, started again for as long as the fleet runs."""

    def __init__(self, name: str, command: Sequence[str], health: tuple[str, int] | None) -> None:
        self.name = name
        self.health = health
        self.code = 0
        self._command = command
        self._process: asyncio.subprocess.Process | None = None

    def signal(self, number: int) -> None:
        """Hand a signal on to the process, if it lives."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def run(self, stopping: asyncio.Event) -> None:
        """Keep it running until the fleet stops; then `code` is how its last process ended."""
        delay = BACKOFF[0]
        while not stopping.is_set():
            started = time.monotonic()
            self.code = await self._run_once(stopping)
            if stopping.is_set():
                return
            lived = time.monotonic() - started
            if self.code == 0 and lived > BRIEF:  # it has retired, as it was told to
                log.info("worker_replaced", worker=self.name, seconds=round(lived))
                delay = BACKOFF[0]
                continue
            delay = BACKOFF[0] if lived > STEADY else delay
            log.warning("worker_ended", worker=self.name, code=self.code, again_in=delay)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), delay)
            delay = min(delay * 2, BACKOFF[1])

    async def _run_once(self, stopping: asyncio.Event) -> int:
        environ = dict(os.environ)
        if self.health is not None:
            environ["WORKER_HEALTH_PORT"] = str(self.health[1])
        # a session of its own: Ctrl-C is for the parent, which hands it on once
        self._process = await asyncio.create_subprocess_exec(*self._command, env=environ, start_new_session=True)
        if stopping.is_set():
            self.signal(signal.SIGTERM)
        watching = asyncio.create_task(self._watch())
        try:
            return await self._process.wait()
        finally:
            watching.cancel()

    async def _watch(self) -> None:
        """Kill a worker whose loop stands still: its leases lapse, and others take over what it held."""
        if self.health is None:
            return
        heard, silent = False, 0
        while silent < SILENT:
            await asyncio.sleep(ASK_EVERY)
            answered = await answers(*self.health)
            heard, silent = heard or answered, 0 if answered or not heard else silent + 1
        log.error("worker_stalled", worker=self.name, silent=SILENT * ASK_EVERY)
        self.signal(signal.SIGKILL)


async def answers(host: str, port: int) -> bool:
    """Whether the worker's `/live` says that its loop turns."""
    try:
        async with asyncio.timeout(ASK_EVERY):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"GET /live HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n")
                await writer.drain()
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


def run(settings: Settings, processes: int, arguments: Sequence[str]) -> int:
    """Run `processes` workers until a signal stops them; the exit code is the worst of theirs."""
    logging.configure(settings, "worker")
    return asyncio.run(_run([_place(settings, number, arguments) for number in range(1, processes + 1)]))


def _place(settings: Settings, number: int, arguments: Sequence[str]) -> Worker:
    command = [sys.executable, "-P", "-m", "service", "worker", "--of", str(os.getpid())]
    port = settings.worker_health_port
    health = ("127.0.0.1", port + number - 1) if port else None
    return Worker(f"w{number}", [*command, "-n", f"w{number}@%h", *arguments], health)


async def _run(workers: Sequence[Worker]) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in FORWARDED:
        loop.add_signal_handler(number, _hand_on(number, workers, stopping))
    log.info("fleet_started", workers=len(workers))
    await asyncio.gather(*(worker.run(stopping) for worker in workers))
    return max(abs(worker.code) for worker in workers)


def _hand_on(number: int, workers: Sequence[Worker], stopping: asyncio.Event) -> Callable[[], None]:
    def hand_on() -> None:
        stopping.set()
        for worker in workers:
            worker.signal(number)

    return hand_on


def follow(parent: int) -> None:
    """Ask for SIGTERM when the process `parent` dies, even by kill -9 (Linux; nothing elsewhere)."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(0)
