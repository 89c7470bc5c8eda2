"""An HTTP server that answers what a test tells it to, byte by byte, and keeps what it was sent."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType

Play = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Seen:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Scripted:
    """Answers each request with the next line of its script; the last one stands for all that follow."""

    script: list[Play] = field(default_factory=list)
    tls: ssl.SSLContext | None = None
    seen: list[Seen] = field(default_factory=list)
    open: int = 0
    most: int = 0
    port: int = 0

    def url(self, path: str = "/hook", host: str = "127.0.0.1") -> str:
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{path}"

    async def __aenter__(self) -> "Scripted":
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        self.port = self.server.sockets[0].getsockname()[1]
        self.tasks: set[asyncio.Task[None] | None] = set()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.close()
        for task in self.tasks:
            if task is not None:
                task.cancel()

    async def wait(self, count: int, timeout: float = 30.0) -> list[Seen]:
        async with asyncio.timeout(timeout):
            while len(self.seen) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return self.seen

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.add(asyncio.current_task())
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError, IndexError):
            while True:
                seen = await _read(reader)
                self.seen.append(seen)
                self.open += 1
                self.most = max(self.most, self.open)
                try:
                    await (self.script.pop(0) if len(self.script) > 1 else self.script[0])(writer)
                finally:
                    self.open -= 1
        writer.close()


async def _read(reader: asyncio.StreamReader) -> Seen:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Seen(first.split()[1], headers, await reader.readexactly(int(headers.get("content-length", "0"))))


def reply(status: int, body: bytes = b"", **headers: str) -> Play:
    """A whole answer."""

    async def play(writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status} Word", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()

    return play


def say(*parts: bytes, pause: float = 0.0) -> Play:
    """These bytes, then the end of the connection."""

    async def play(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)
        writer.close()

    return play


def endless(first: bytes, again: bytes, pause: float = 0.0) -> Play:
    """A beginning, then the same bytes for ever."""

    async def play(writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while True:
            writer.write(again)
            await writer.drain()
            await asyncio.sleep(pause)

    return play


async def silence(writer: asyncio.StreamWriter) -> None:
    """Nothing at all, for ever."""
    await asyncio.sleep(3600)


def held(gate: asyncio.Event, then: Play) -> Play:
    """Wait for the test before answering."""

    async def play(writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await then(writer)

    return play


@contextlib.asynccontextmanager
async def scripted(*script: Play, tls: ssl.SSLContext | None = None) -> AsyncIterator[Scripted]:
    """A server with a script."""
    async with Scripted(list(script), tls) as found:
        yield found
