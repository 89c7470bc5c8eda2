"""From a host name to a connection ready for mail: DNS, TCP, banner, EHLO, STARTTLS, AUTH.

The words are aiosmtplib's; what is added is which phase an error belongs to, a bound on each phase, and three
refusals: no credentials in clear, no mail without the TLS that was asked for, no STARTTLS with anything behind its 220.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiosmtplib
import msgspec

from service.smtp.auth import authenticate
from service.smtp.connect_errors import dial_error, needs_mending
from service.smtp.connection import Connection
from service.smtp.dns import Resolve, Resolver
from service.smtp.errors import SmtpError
from service.smtp.phases import Phase, Timeouts
from service.smtp.probe_steps import OnStep, Step, mend
from service.smtp.protocol import Wire, as_transport
from service.smtp.starttls_guard import Tap
from service.smtp.tls import Tls, client_context


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A mail server and how to be let in. `plaintext_auth` allows PLAIN and LOGIN on a line that is not encrypted."""

    host: str
    port: int
    username: str | None = None
    password: str | None = None
    tls: Tls = Tls.NONE
    verify: bool = True
    local_name: str | None = None
    plaintext_auth: bool = False


class Dialer:
    """Opens connections to one server."""

    def __init__(
        self,
        server: Server,
        timeouts: Timeouts,
        context: ssl.SSLContext | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        self.server = server
        self.timeouts = timeouts
        self.resolver = Resolver(server.host, server.port, resolve)
        self._context = context

    async def dial(self, deadline: float, on_step: OnStep | None = None) -> Connection:
        """Return a connection ready for mail; `deadline` is in loop time. Raises SmtpError."""
        return await _Call(self, deadline, on_step).connect()

    async def context(self) -> ssl.SSLContext:
        """Return the TLS settings; they are read from disk once, in a thread."""
        if self._context is None:
            self._context = await asyncio.to_thread(client_context, verify=self.server.verify)
        return self._context


class _Call:
    """One attempt to get through, phase by phase."""

    def __init__(self, dialer: Dialer, deadline: float, on_step: OnStep | None) -> None:
        self._dialer = dialer
        self._server = dialer.server
        self._deadline = deadline
        self._on_step = on_step
        self._said = ""

    async def connect(self) -> Connection:
        smtp = await self._greet(await self._tcp())
        try:
            await self._ehlo(smtp)
            if self._server.tls is Tls.STARTTLS:
                await self._starttls(smtp)
                await self._ehlo(smtp)
            if self._server.username:
                await self._auth(smtp, self._server.username)
            return self._take_over(smtp)
        except BaseException:
            if smtp.transport is not None:
                as_transport(smtp.transport).abort()
            smtp.close()
            raise

    async def _tcp(self) -> socket.socket:
        resolver = self._dialer.resolver
        async with self._step("dns", Phase.CONNECT):
            addresses = await resolver.addresses()
            self._said = ", ".join(str(address[0]) for _, address in addresses)
        async with self._step("connect", Phase.CONNECT) as limit:
            sock = await resolver.connect(addresses, limit)
            self._said = f"{sock.getpeername()[0]} port {self._server.port}"
        return sock

    async def _greet(self, sock: socket.socket) -> aiosmtplib.SMTP:
        encrypted = self._server.tls is Tls.TLS
        try:
            smtp = aiosmtplib.SMTP(
                hostname=self._server.host,
                local_hostname=self._server.local_name or _literal(sock),
                use_tls=encrypted,
                start_tls=False,
                tls_context=await self._dialer.context() if encrypted else None,
            )
        except BaseException:
            sock.close()
            raise
        async with self._step("banner", Phase.BANNER) as limit:
            self._said = (await smtp.connect(sock=sock, timeout=limit)).message
        return smtp

    async def _ehlo(self, smtp: aiosmtplib.SMTP) -> None:
        async with self._step("ehlo", Phase.EHLO) as limit:
            try:
                await smtp.ehlo(timeout=limit)
            except aiosmtplib.SMTPHeloError as error:
                if error.code not in (500, 501, 502, 504) or self._server.tls is Tls.STARTTLS:
                    raise
                await smtp.helo(timeout=limit)
            self._said = ", ".join(sorted(smtp.esmtp_extensions)) or "no extensions"

    async def _starttls(self, smtp: aiosmtplib.SMTP) -> None:
        async with self._step("starttls", Phase.STARTTLS) as limit:
            if not smtp.supports_extension("starttls"):
                raise needs_mending(Phase.STARTTLS, "starttls_missing", "the server does not offer STARTTLS")
            context = await self._dialer.context()
            tap = Tap.on(smtp)
            try:
                await smtp.starttls(tls_context=context, timeout=limit)
            finally:
                tap.check()
            self._said = str((smtp.get_transport_info("cipher") or ("",))[0])

    async def _auth(self, smtp: aiosmtplib.SMTP, username: str) -> None:
        async with self._step("auth", Phase.AUTH) as limit:
            secret = self._server.tls is not Tls.NONE or self._server.plaintext_auth
            self._said = await authenticate(smtp, username, self._server.password or "", secret=secret, timeout=limit)

    def _take_over(self, smtp: aiosmtplib.SMTP) -> Connection:
        """Take the open line from the library: from here on its protocol is the transaction's."""
        if smtp.transport is None or smtp.transport.is_closing():
            raise dial_error(Phase.EHLO, ConnectionResetError("the server closed the connection"), self._server.host)
        wire = Wire()
        wire.take_over(as_transport(smtp.transport))
        offers = dict(smtp.esmtp_extensions)
        return Connection(wire, host=self._server.host, offers=offers, timeouts=self._dialer.timeouts)

    @asynccontextmanager
    async def _step(self, name: str, phase: Phase) -> AsyncIterator[float]:
        """Bound one phase (yields its seconds), turn what it raises into SmtpError, report it."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        limit = max(min(self._dialer.timeouts.of(phase), self._deadline - started), 0)
        try:
            async with asyncio.timeout(limit):
                yield limit
        except Exception as cause:
            error = cause if isinstance(cause, SmtpError) else dial_error(phase, cause, self._server.host)
            error.host = self._server.host
            self._report(Step(name, False, loop.time() - started, f"{error.reason}: {error.text}", mend(error)))
            raise error from cause
        self._report(Step(name, True, loop.time() - started, self._said))

    def _report(self, step: Step) -> None:
        if self._on_step is not None:
            self._on_step(step)


def _literal(sock: socket.socket) -> str:
    """Name this client by its address (RFC 5321, section 4.1.3): no DNS lookup that could hang."""
    address = str(sock.getsockname()[0]).partition("%")[0]
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"
