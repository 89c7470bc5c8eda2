"""An SMTP server that accepts every mail and hands it to one function."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

SIZE_LIMIT = 50 * 1024 * 1024  # bytes
IDLE_TIMEOUT = 300.0  # seconds, RFC 5321 section 4.5.3.2.7
QUIET = ("mail.log", "mail.debug")


@dataclass(frozen=True, slots=True)
class Received:
    """One mail as it came: the envelope, and the message exactly as sent (dots unstuffed, CRLF line ends)."""

    sender: str
    recipients: tuple[str, ...]
    raw: bytes
    at: datetime


Deliver = Callable[[Received], Awaitable[str]]


class Sink:
    """Listens on ``host:port``; ``deliver`` is awaited before the 250 and returns the id named in it.

    Offers 8BITMIME, SMTPUTF8, SIZE, PIPELINING and AUTH, which accepts any name and password.
    """

    def __init__(self, deliver: Deliver, host: str = "127.0.0.1", port: int = 0) -> None:
        self.deliver = deliver
        self.host = host
        self.port = port
        self.connections: set[SMTP] = set()
        self.server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listens; port 0 becomes the port that was free. Raises OSError."""
        for name in QUIET:
            logging.getLogger(name).setLevel(logging.WARNING)
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(self._connection, self.host, self.port, backlog=1024)
        self.port = self.server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stops listening and drops whoever is connected."""
        if self.server is not None:
            self.server.close()
        for connection in list(self.connections):
            if isinstance(connection.transport, asyncio.Transport):
                connection.transport.abort()
        if self.server is not None:
            await self.server.wait_closed()

    def _connection(self) -> SMTP:
        return _Connection(self, asyncio.get_running_loop())

    async def take(self, session: Session, envelope: Envelope) -> str:
        """What to answer to the final dot."""
        raw = envelope.content
        if not isinstance(raw, bytes) or envelope.mail_from is None:
            return "554 5.6.0 no message"
        received = Received(envelope.mail_from, tuple(envelope.rcpt_tos), raw, datetime.now(UTC))
        return f"250 2.0.0 Ok: queued as {await self.deliver(received)}"


class _Connection(SMTP):
    def __init__(self, sink: Sink, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            _Handler(sink),
            data_size_limit=SIZE_LIMIT,
            enable_SMTPUTF8=True,
            hostname="mailbox.callboard.test",
            ident="Callboard mailbox",
            timeout=IDLE_TIMEOUT,
            auth_require_tls=False,
            authenticator=_accept,
            loop=loop,
        )
        self.sink = sink

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.sink.connections.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.sink.connections.discard(self)
        super().connection_lost(error)


class _Handler:
    def __init__(self, sink: Sink) -> None:
        self.sink = sink

    async def handle_EHLO(
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        return [*responses[:-1], "250-PIPELINING", *responses[-1:]]

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        return await self.sink.take(session, envelope)


def _accept(*_: Any) -> AuthResult:
    return AuthResult(success=True)
