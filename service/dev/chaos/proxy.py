"""A TCP proxy that breaks connections on request: cut, black hole, latency, cut after so many bytes or at a pattern.

async with Proxy("127.0.0.1", sink.port) as proxy:
    proxy.cut_at(b"\\r\\n.\\r\\n")        # drop the connection when the client has sent this
    ...                                  # talk to proxy.host, proxy.port
"""

import asyncio
import contextlib

UNHEARD = 5.0
"""Seconds that a server has to answer what nobody is to hear."""


class Proxy:
    """Stands between a client and a server; an async context manager. Settings act on open connections too."""

    def __init__(self, host: str, port: int) -> None:
        self.upstream = (host, port)
        self.host, self.port = "127.0.0.1", 0
        self.latency = 0.0
        self.connections = 0
        self.bytes_up = 0
        self.bytes_down = 0
        self._blackhole = False
        self._cut_after: int | None = None
        self._pattern = b""
        self._passes_pattern = False
        self._swallows = False
        self._muted: dict[asyncio.StreamWriter, asyncio.Event] = {}  # clients whose answers are lost; set by the first
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._serve, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Reset every open connection, both ways."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    def blackhole(self, on: bool = True) -> None:
        """Swallow everything in both directions; connections stay open. New ones are accepted and hear nothing."""
        self._blackhole = on

    def cut_after(self, count: int) -> None:
        """Cut once the clients have sent `count` bytes more."""
        self._cut_after = self.bytes_up + count

    def cut_at(self, pattern: bytes, *, passing: bool = False) -> None:
        """Cut when a client sends `pattern`; with `passing`, the server still gets it and only its answer is lost."""
        self._pattern, self._passes_pattern, self._swallows = pattern, passing, False

    def blackhole_at(self, pattern: bytes) -> None:
        """Begin to swallow everything when a client sends `pattern`, which is swallowed too."""
        self._pattern, self._passes_pattern, self._swallows = pattern, False, True

    def heal(self) -> None:
        """Behave from now on."""
        self._blackhole, self._cut_after, self._pattern, self.latency = False, None, b"", 0.0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection(*self.upstream)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, upstream_writer}
        self._writers |= pair
        up = asyncio.create_task(self._pump(reader, upstream_writer, pair, upward=True))
        down = asyncio.create_task(self._pump(upstream_reader, writer, pair, upward=False))
        self._tasks |= {up, down}
        await asyncio.wait({up, down})
        for each in pair:
            if not each.is_closing():  # it swallowed the end, too
                each.transport.abort()
        self._writers -= pair
        self._tasks -= {up, down}

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        pair: set[asyncio.StreamWriter],
        *,
        upward: bool,
    ) -> None:
        tail = b""
        try:
            while data := await reader.read(65536):
                if self.latency:
                    await asyncio.sleep(self.latency)
                if upward and await self._fatal(tail + data, data, writer, pair):
                    break
                if self._blackhole or (not upward and self._is_lost(writer)):
                    continue
                tail = data[-64:]
                self._count(len(data), upward)
                writer.write(data)
                await writer.drain()
            else:
                if not self._blackhole:
                    writer.close()
                return
        except OSError:
            pass
        for each in pair:
            each.transport.abort()

    def _is_lost(self, client: asyncio.StreamWriter) -> bool:
        """Whether what the server answers is lost; notes that it has answered."""
        answered = self._muted.get(client)
        if answered is not None:
            answered.set()
        return answered is not None

    async def _fatal(
        self, seen: bytes, data: bytes, writer: asyncio.StreamWriter, pair: set[asyncio.StreamWriter]
    ) -> bool:
        if self._pattern and self._pattern in seen and self._swallows:
            self._blackhole, self._pattern = True, b""
        elif self._pattern and self._pattern in seen:
            if self._passes_pattern:
                await self._pass_unheard(data, writer, pair)
            return True
        if self._cut_after is not None and self.bytes_up + len(data) > self._cut_after:
            writer.write(data[: max(0, self._cut_after - self.bytes_up)])
            await writer.drain()
            return True
        return False

    async def _pass_unheard(self, data: bytes, server: asyncio.StreamWriter, pair: set[asyncio.StreamWriter]) -> None:
        """Hands the data to the server and waits until it has acted on it: a reset would take back what is unread."""
        (client,) = pair - {server}
        answered = self._muted[client] = asyncio.Event()
        server.write(data)
        await server.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(UNHEARD):
                await answered.wait()
        del self._muted[client]

    def _count(self, size: int, upward: bool) -> None:
        if upward:
            self.bytes_up += size
        else:
            self.bytes_down += size
