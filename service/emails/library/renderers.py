"""A small pool of processes that compile and fill in tenants' templates; one that takes too long is killed.

A process is started when the first job needs it, kept warm, and replaced when it dies. Jobs wait for one in order.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import structlog

from service.emails.library.compiling import Job, Result

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
"""Jobs that wait at most."""

ROOT = Path(__file__).parents[3]

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Result)


class Killed(Exception):
    """The job ended its process: it took too much time or memory, or broke it."""


class Busy(Exception):
    """No process was free in time; the job may be asked for again."""


class Child:
    """One process and the line to it."""

    def __init__(
        self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.process, self._reader, self._writer = process, reader, writer
        self.known: set[str] = set()

    @classmethod
    async def start(cls) -> Child:
        """Start one and wait until it has imported all it needs. Raises Busy where it does not come up."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.to_thread(_spawn, theirs.fileno())
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
        """Have a job done. Raises Killed; then this child is no more."""
        frame = _encoder.encode(job)
        try:
            async with asyncio.timeout(BACKSTOP):
                self._writer.write(struct.pack(">I", len(frame)) + frame)
                await self._writer.drain()
                (size,) = struct.unpack(">I", await self._reader.readexactly(4))
                if size > MAX_ANSWER:
                    raise Killed("it makes too much")
                return _decoder.decode(await self._reader.readexactly(size))
        except TimeoutError as error:
            raise Killed("it takes too long") from error
        except (asyncio.IncompleteReadError, OSError, msgspec.DecodeError) as error:
            code = await asyncio.to_thread(self._end)
            raise Killed("it takes too long" if code == -signal.SIGPROF else "it takes too much memory") from error

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
        self._free = asyncio.Semaphore(size)
        self._idle: list[Child] = []
        self._waiting = 0

    async def ask(self, job: Job) -> Result:
        """Have a job done that names what the process may have compiled; the words go along when it has not.

        Raises Killed, Busy.
        """
        async with self._child() as child:
            if job.name is None or job.name not in child.known:
                return await self._whole(child, job)
            found = await child.ask(msgspec.structs.replace(job, contents={}, variables=None))
            return await self._whole(child, job) if found.unknown else found

    async def _whole(self, child: Child, job: Job) -> Result:
        found = await child.ask(job)
        if job.name is not None:
            child.known.add(job.name)
        return found

    async def close(self) -> None:
        """End all processes."""
        idle, self._idle = self._idle, []
        for child in idle:
            await child.kill()

    @asynccontextmanager
    async def _child(self) -> AsyncIterator[Child]:
        async with self._turn():
            child = self._idle.pop() if self._idle else await Child.start()
            try:
                yield child
            except BaseException as error:
                await asyncio.shield(child.kill())
                if isinstance(error, Killed):
                    log.warning("renderer_killed", reason=str(error))
                raise
            self._idle.append(child)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self._waiting >= WAITING:
            raise Busy("too many templates wait to be filled in")
        self._waiting += 1
        try:
            async with asyncio.timeout(PATIENCE):
                await self._free.acquire()
        except TimeoutError as error:
            raise Busy("no renderer was free in time") from error
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._free.release()


def _spawn(line: int) -> subprocess.Popen[bytes]:
    """Start a process that knows nothing of ours: no setting, no secret, no descriptor but its line."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}
    return subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", "service.emails.library.child", str(line)],
        env={**kept, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"},
        pass_fds=(line,),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
