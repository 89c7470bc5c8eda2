"""A small pool of processes that compile and fill in tenants' templates; one that takes too long is killed.

A process is started when the first job needs it, kept warm, and replaced when it dies. Jobs wait for one by priority,
then fairly by tenant. A process that dies or runs out of memory may do so because of an earlier job, or while it was
idle: the job is done again in a new one, and only what fails there has failed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import structlog

from callboard_workers.common.fair import FairLimiter, Turn, current_turn
from callboard_workers.errors import Overloaded
from service.templates.tenant.compile import Job, Result
from service.templates.tenant.content import Words

log = structlog.get_logger("service.emails")

SIZE = 2
"""Processes at most."""
BACKSTOP = 15.0
"""Seconds by the clock after which a job is killed that used little processor time, on a machine that is busy."""
START = 30.0
PATIENCE = 10.0
"""Seconds that a job waits for a process."""
MAX_ANSWER = 16 * 1024 * 1024
WAITING = 200
"""Jobs of one tenant that wait at most."""
KNOWN = 10_000
"""Names that are remembered of what a process compiled."""

Contents = Callable[[], Awaitable[dict[str, Words]]]

ROOT = Path(__file__).parents[3]

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Result)


class Killed(Exception):
    """The job ended its process: it took too much time or memory, or broke it."""


class Busy(Exception):
    """No process was free in time, or none came up; the job may be asked for again."""


class Lost(Exception):
    """The process died or ran out of memory, perhaps not because of this job."""


class Child:
    """One process and the line to it."""

    def __init__(
        self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.process, self._reader, self._writer = process, reader, writer
        self.known: set[str] = set()

    @property
    def is_alive(self) -> bool:
        """Whether the process runs, as far as can be told without asking it."""
        return self.process.poll() is None and not self._reader.at_eof()

    @classmethod
    async def start(cls) -> Child:
        """Start one and wait until it has imported all it needs. Raises Busy where it does not come up."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.to_thread(_spawn, theirs.fileno())
            except OSError as error:
                ours.close()
                raise Busy(f"a renderer did not start: {error!r}") from error
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=1 << 20)
        child = cls(process, reader, writer)
        try:
            async with asyncio.timeout(START):
                await reader.readexactly(4)
        except (TimeoutError, asyncio.IncompleteReadError, OSError) as error:
            await child.kill()
            raise Busy(f"a renderer did not start: {error!r}") from error
        except BaseException:
            await child.kill()
            raise
        return child

    async def ask(self, job: Job) -> Result:
        """Have a job done. Raises Killed, Lost, Busy; then this child is no more."""
        frame = _encoder.encode(job)
        try:
            async with asyncio.timeout(BACKSTOP):
                self._writer.write(struct.pack(">I", len(frame)) + frame)
                await self._writer.drain()
                (size,) = struct.unpack(">I", await self._reader.readexactly(4))
                if size > MAX_ANSWER:
                    raise Killed("it makes too much")
                result = _decoder.decode(await self._reader.readexactly(size))
        except TimeoutError as error:
            raise Busy("a renderer had no processor time") from error
        except (asyncio.IncompleteReadError, OSError, msgspec.DecodeError) as error:
            code = await asyncio.to_thread(self._end)
            if code == -signal.SIGPROF:
                raise Killed("it takes too long") from error
            raise Lost("it takes too much memory") from error
        if result.exhausted:
            raise Lost("it takes too much memory")
        return result

    async def kill(self) -> None:
        """End the process, at once."""
        self._writer.close()
        await asyncio.to_thread(self._end)

    def _end(self) -> int:
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(0.5)  # it may be ending by itself: its own reason is the one to tell
        self.process.kill()
        return self.process.wait()


class Renderers:
    """Hands jobs to processes, as many at once as there are."""

    def __init__(self, size: int = SIZE) -> None:
        self._places = FairLimiter(size)
        self._idle: list[Child] = []
        self._waiting: Counter[Hashable] = Counter()

    async def ask(self, job: Job, turn: Turn | None = None, *, contents: Contents | None = None) -> Result:
        """Have a job done. `contents` reads those of a job that names what the process may have compiled already.

        It waits for its turn: by default that of the running attempt. Raises Killed, Busy, what `contents` raises.
        """
        async with self._place(turn or current_turn()):
            try:
                return await self._do(job, contents, fresh=False)
            except Lost as error:
                log.info("renderer_replaced", reason=str(error))
            try:
                return await self._do(job, contents, fresh=True)
            except Lost as error:
                log.warning("renderer_killed", reason=str(error))
                raise Killed(str(error)) from error

    async def close(self) -> None:
        """End all processes."""
        idle, self._idle = self._idle, []
        for child in idle:
            await child.kill()

    async def _do(self, job: Job, contents: Contents | None, *, fresh: bool) -> Result:
        async with self._child(fresh=fresh) as child:
            if job.name is not None and job.name in child.known:
                found = await child.ask(job)
                if not found.unknown:
                    return found
            if contents is not None:
                job = msgspec.structs.replace(job, contents=await contents())
            found = await child.ask(job)
            if job.name is not None:
                if len(child.known) >= KNOWN:
                    child.known.clear()
                child.known.add(job.name)
            return found

    @asynccontextmanager
    async def _child(self, *, fresh: bool) -> AsyncIterator[Child]:
        child = await self._take(fresh=fresh)
        try:
            yield child
        except BaseException as error:
            await asyncio.shield(child.kill())
            if isinstance(error, Killed):
                log.warning("renderer_killed", reason=str(error))
            raise
        self._idle.append(child)

    async def _take(self, *, fresh: bool) -> Child:
        while self._idle and not fresh:
            child = self._idle.pop()
            if child.is_alive:
                return child
            await child.kill()
        return await Child.start()

    @asynccontextmanager
    async def _place(self, turn: Turn) -> AsyncIterator[None]:
        if self._waiting[turn.tenant] >= WAITING:
            raise Busy("too many templates wait to be filled in")
        self._waiting[turn.tenant] += 1
        try:
            async with asyncio.timeout(PATIENCE):
                await self._places.acquire(turn=turn)
        except (TimeoutError, Overloaded) as error:
            raise Busy("no renderer was free in time") from error
        finally:
            self._waiting[turn.tenant] -= 1
            if not self._waiting[turn.tenant]:
                del self._waiting[turn.tenant]
        try:
            yield
        finally:
            self._places.release(turn=turn)


def _spawn(line: int) -> subprocess.Popen[bytes]:
    """Start a process that knows nothing of ours: no setting, no secret, no descriptor but its line."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}
    return subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", "service.templates.tenant.sandbox_process", str(line)],
        env={**kept, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"},
        pass_fds=(line,),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
