"""The line under a conversation: an asyncio protocol that parses replies and knows when its writes are gone.

It takes over a connection after EHLO, STARTTLS and AUTH. Several replies may be on their way at once (PIPELINING,
RFC 2920). What a server may make us hold is bounded: 32 KiB for a reply, 8 KiB for a line, 256 replies unread.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import cast

from service.smtp.reply import ServerReply, clean

MAX_REPLY = 32 * 1024
MAX_LINE = 8 * 1024
MAX_UNREAD = 256


class BadReply(Exception):
    """The server said something that is not SMTP, or too much of it."""


class Wire(asyncio.Protocol):
    """One connection to a server, in terms of bytes out and replies in."""

    def __init__(self, on_news: Callable[[], None] | None = None) -> None:
        self._buffer = bytearray()
        self._lines: list[bytes] = []
        self._size = 0
        self._replies: deque[ServerReply] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._paused = False
        self._transport: asyncio.Transport | None = None
        self.failure: Exception | None = None
        self.on_news = on_news

    @property
    def alive(self) -> bool:
        """True while the connection is open and has said nothing unasked."""
        return (
            self.failure is None
            and not self.has_news
            and self._transport is not None
            and not self._transport.is_closing()
        )

    @property
    def has_news(self) -> bool:
        """True if the server has said something that nobody has read."""
        return bool(self._replies or self._buffer or self._lines)

    def take_over(self, transport: asyncio.Transport) -> None:
        """Become the protocol of an open connection."""
        self._transport = transport
        # Writes are counted as gone when the kernel has them: the fence must stand right before the dot.
        transport.set_write_buffer_limits(high=1, low=0)
        transport.set_protocol(self)

    def write(self, data: bytes | memoryview) -> None:
        """Queue bytes for sending. Raises ConnectionError if the connection is gone, and then nothing is sent."""
        transport = self._transport
        if transport is None or self.failure is not None or transport.is_closing():
            raise self._gone()
        transport.write(data)

    async def drain(self, timeout: float) -> None:
        """Wait until the kernel has taken what was written. Raises TimeoutError, ConnectionError."""
        if self.failure is not None:
            raise self._gone()
        if self._paused:
            self._writable = asyncio.get_running_loop().create_future()
            await self._wait(self._writable, timeout)

    async def reply(self, timeout: float) -> ServerReply:
        """Return the next reply. Raises TimeoutError, ConnectionError, BadReply."""
        if not self._replies:
            if self.failure is not None:
                raise self._gone()
            self._waiter = asyncio.get_running_loop().create_future()
            await self._wait(self._waiter, timeout)
        return self._replies.popleft()

    def unread(self) -> ServerReply | None:
        """Return a reply that has come unasked, or None."""
        return self._replies.popleft() if self._replies else None

    def close(self) -> None:
        """Close once everything written is sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Drop the connection at once; what the kernel does not have yet is never sent."""
        if self._transport is not None:
            self._transport.abort()
        self._fail(ConnectionAbortedError("the connection was dropped by this side"))

    def data_received(self, data: bytes) -> None:
        """Parse complete replies; wake who waits for one."""
        if self.failure is not None:
            return
        self._buffer += data
        try:
            self._parse()
        except BadReply as error:
            self._fail(error)
            self.abort()
            return
        self._wake(None)

    def eof_received(self) -> bool:
        """The server closed its side: so do we."""
        self._fail(ConnectionResetError("the server closed the connection"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody who waits."""
        error = ConnectionResetError(f"the connection was lost: {exc}" if exc else "the connection was closed")
        error.__cause__ = exc
        self._fail(error)
        self._transport = None

    def pause_writing(self) -> None:
        """The kernel's buffer is full."""
        self._paused = True

    def resume_writing(self) -> None:
        """The kernel has taken everything."""
        self._paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def _parse(self) -> None:
        start = 0
        while (end := self._buffer.find(b"\n", start)) >= 0:
            line = bytes(self._buffer[start : end + 1])
            start = end + 1
            self._take(line)
        del self._buffer[:start]
        if len(self._buffer) > MAX_LINE:
            raise BadReply("a line of the server's reply has no end")

    def _take(self, line: bytes) -> None:
        mark = line[3:4]
        if len(line) > MAX_LINE or not line[:3].isdigit() or not b"200" <= line[:3] <= b"599" or mark not in b"- \r\n":
            raise BadReply(f"not an SMTP reply: {clean(line[:80])!r}")
        self._size += len(line)
        if self._size > MAX_REPLY or len(self._replies) >= MAX_UNREAD:
            raise BadReply("the server's reply is too long")
        self._lines.append(line[4:].strip())
        if mark == b"-":
            return
        self._replies.append(ServerReply(int(line[:3]), clean(b"\n".join(self._lines))))
        self._lines.clear()
        self._size = 0

    async def _wait(self, future: asyncio.Future[None], timeout: float) -> None:
        timer = future.get_loop().call_later(max(timeout, 0), _expire, future)
        try:
            await future
        finally:
            timer.cancel()

    def _wake(self, error: Exception | None) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done() and (self._replies or error is not None):
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)
        if self.on_news is not None:
            self.on_news()

    def _fail(self, error: Exception) -> None:
        if self.failure is not None:
            return
        self.failure = error
        if self._writable is not None and not self._writable.done():
            self._writable.set_exception(error)
        self._wake(error)

    def _gone(self) -> Exception:
        return self.failure or ConnectionResetError("the connection is closed")


def _expire(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(TimeoutError("no answer in time"))


def as_transport(transport: asyncio.BaseTransport) -> asyncio.Transport:
    """Narrow what an event loop returns: uvloop's transports do not inherit from asyncio's."""
    return cast(asyncio.Transport, transport)
