"""One child process of `up`: started, watched, started again when it ends, and stopped with all it started."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from service.dev.terminal import summary, without_traceback

LINE_LIMIT = 1024 * 1024  # bytes kept of a line without an end
BACKOFF = (0.5, 30.0)  # seconds
STEADY = 30.0  # seconds after which a child counts as well again
POLL = 0.02  # seconds
HOPELESS = 3  # ends before it was ever ready
SETTLED = 1.0  # seconds that a child without a check of its own runs, then it is ready
PATIENCE = 15.0  # seconds between two lines about a child that is not ready yet


class Hopeless(RuntimeError):
    """A child did not start: it ended again and again, or was not ready in time. Names it and its last output."""


async def nothing() -> None:
    """A preparation with nothing to prepare."""


@dataclass
class Child:
    """The command to run, how to ask whether it is ready, how to stop it.

    ``ready`` gets the process id; without it the child is ready once it has run for a second.
    """

    name: str
    command: Callable[[], list[str]]
    environment: Mapping[str, str]
    write: Callable[[str], None]
    say: Callable[[str], None]
    ready: Callable[[int], Awaitable[bool]] | None = None
    prepare: Callable[[], Awaitable[None]] = nothing
    stop_signal: int = signal.SIGTERM
    failures: int = 0
    last_line: str = ""
    code: int = 0
    is_ready: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    process: asyncio.subprocess.Process | None = None
    task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts it and keeps it running until :meth:`stop`."""
        self.task = asyncio.create_task(self._keep_running(), name=self.name)

    async def until_ready(self, timeout: float) -> None:
        """Wait until it is ready. Raises Hopeless when it cannot start, or is not ready after ``timeout`` seconds."""
        began = told = time.monotonic()
        while not self.is_ready.is_set():
            if self.task is not None and self.task.done():
                await self.task  # raises what ended it
            now = time.monotonic()
            if self.failures >= HOPELESS:
                said = self._said().rstrip(".")
                raise Hopeless(
                    f"{self.name} does not start: it {ending(self.code)}, {self.failures} times{said}."
                    " Fix that, and run `up` again"
                )
            if now - began > timeout:
                raise Hopeless(
                    f"{self.name} is not ready after {timeout:.0f} s{self._said().rstrip('.')}"
                    ". A slow machine may need another try: what was done is kept"
                )
            if now - told > PATIENCE:
                told = now
                self.say(f"waiting for {self.name} for {now - began:.0f} s{self._said()}")
            await asyncio.sleep(POLL)

    def _said(self) -> str:
        return f". Its last output: {self.last_line}" if self.last_line else ". It has written nothing."

    async def stop(self, timeout: float, busy: Callable[[], Awaitable[bool]] | None = None) -> None:
        """Stops it; after ``timeout`` seconds, and once it is no longer ``busy``, kills it and whatever it started."""
        self.stopping.set()
        if self.task is None:
            return
        self.signal(self.stop_signal)
        done, _ = await asyncio.wait([self.task], timeout=timeout)
        while not done and busy is not None and await busy():
            done, _ = await asyncio.wait([self.task], timeout=0.5)
        if not done:
            self.kill()
            await asyncio.wait([self.task], timeout=1)
        self.task.cancel()

    def signal(self, number: int) -> None:
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9 for it and all its descendants in its session."""
        self.stopping.set()
        if self.process is not None:
            kill_group(self.process.pid)

    async def _keep_running(self) -> None:
        delay = BACKOFF[0]
        while not self.stopping.is_set():
            started = time.monotonic()
            code = self.code = await self._run_once()
            if self.stopping.is_set():
                return
            ran = time.monotonic() - started
            self.failures += 0 if self.is_ready.is_set() else 1
            delay = BACKOFF[0] if ran > STEADY else delay
            self.say(f"{self.name} {ending(code)}; it starts again in {delay:g} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), delay)
            delay = min(delay * 2, BACKOFF[1])

    async def _run_once(self) -> int:
        await self.prepare()
        # a pipe of our own: until Python 3.12.4 wait() waits for the end of asyncio's, which a grandchild may hold
        reading_end, writing_end = os.pipe()
        try:
            process = self.process = await asyncio.create_subprocess_exec(
                *self.command(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writing_end,
                stderr=asyncio.subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,  # Ctrl-C is for `up`, which stops all in order
            )
        finally:
            os.close(writing_end)
        if self.stopping.is_set():
            self.signal(self.stop_signal)
        reading = asyncio.create_task(self._read(reading_end))
        watching = asyncio.create_task(self._watch(process.pid))
        try:
            code = await process.wait()
        finally:
            watching.cancel()
            kill_group(process.pid)  # what it left behind, such as the processes of a killed API
        await asyncio.wait([reading], timeout=1)
        reading.cancel()
        return code

    async def _watch(self, pid: int) -> None:
        again, started = self.is_ready.is_set(), time.monotonic()
        if self.ready is None:
            await asyncio.sleep(SETTLED)
        else:
            while not await self.ready(pid):  # noqa: ASYNC110 - another process, which cannot set an event
                await asyncio.sleep(POLL)
        self.is_ready.set()
        if again:
            self.say(f"{self.name} is back after {time.monotonic() - started:.1f} s")

    async def _read(self, pipe: int) -> None:
        """Lines of any length; what is longer than the limit is cut into several."""
        output = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(output), os.fdopen(pipe, "rb", 0)
        )
        rest = b""
        try:
            while block := await output.read(65_536):
                *lines, rest = (rest + block).split(b"\n")
                if len(rest) > LINE_LIMIT:
                    lines, rest = [*lines, rest], b""
                for line in lines:
                    self._hear(line.decode(errors="replace"))
        finally:
            transport.close()
        if rest:
            self._hear(rest.decode(errors="replace"))

    def _hear(self, line: str) -> None:
        if line.strip():
            self.last_line = summary(line)
        if line := line if self.is_ready.is_set() else without_traceback(line):
            self.write(line)


def kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def ending(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"ended with code {code}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"
