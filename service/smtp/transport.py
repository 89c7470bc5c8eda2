"""The way out: one transport per mail server and process, shared by every mail of its event loop."""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from service.smtp.body import prepare
from service.smtp.breaker import Breaker
from service.smtp.connect import Dialer, Server
from service.smtp.connection import BeforeDot, Connection
from service.smtp.dns import Resolve
from service.smtp.envelope import Envelope, envelope
from service.smtp.errors import SmtpError
from service.smtp.phases import Phase, Timeouts
from service.smtp.pool import Bounds, Pool
from service.smtp.probe import probe
from service.smtp.probe_steps import Step
from service.smtp.reply import Reply
from service.smtp.tls import Tls

if TYPE_CHECKING:
    from service.settings import Settings


class Deferred(Protocol):
    """An email's bytes, read when its connection is there, in memory that is reserved first and released by `send`."""

    def reserve_now(self) -> bool: ...

    async def reserve(self, deadline: float) -> None: ...

    async def read(self) -> bytes: ...

    def release(self) -> None: ...


class Load(msgspec.Struct, frozen=True):
    """How busy a transport is: connections open, kept idle, mails waiting, the limit as learnt, the breaker."""

    open: int
    idle: int
    waiting: int
    limit: int
    breaker_open: bool


class Transport:
    """Sends mail through one SMTP server.

    `username` and `password` are never sent on a line that is not encrypted unless `plaintext_auth` says so.
    `context` replaces the TLS settings made from `verify`, for an authority of your own. `local_name` is what EHLO
    says; by default this machine's address. `resolve` finds the addresses of the host in the system's place. Use it on
    one event loop.
    """

    def __init__(
        self,
        host: str,
        port: int = 25,
        *,
        username: str | None = None,
        password: str | None = None,
        tls: Tls | str = Tls.NONE,
        verify: bool = True,
        pool_size: int = 10,
        timeouts: Timeouts | None = None,
        plaintext_auth: bool = False,
        local_name: str | None = None,
        context: ssl.SSLContext | None = None,
        bounds: Bounds | None = None,
        breaker: Breaker | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        server = Server(
            host=host,
            port=port,
            username=username,
            password=password,
            tls=Tls(tls),
            verify=verify,
            local_name=local_name,
            plaintext_auth=plaintext_auth,
        )
        self._timeouts = timeouts or Timeouts()
        self._dialer = Dialer(server, self._timeouts, context, resolve)
        self._breaker = breaker or Breaker()
        self._pool = Pool(self._dialer.dial, bounds or Bounds(size=pool_size), self._breaker)

    @classmethod
    def of(cls, settings: "Settings", *, timeouts: Timeouts | None = None) -> "Transport":
        """Make the transport that the settings describe."""
        return cls(
            settings.smtp_host,
            settings.smtp_port,
            username=settings.smtp_username or None,
            password=settings.smtp_password or None,
            tls=settings.smtp_tls,
            verify=settings.smtp_verify,
            pool_size=settings.smtp_pool_size,
            timeouts=timeouts,
            plaintext_auth=settings.smtp_plaintext_auth,
        )

    @property
    def load(self) -> Load:
        """How busy the transport is now."""
        pool = self._pool
        return Load(pool.open, pool.idle, pool.waiting, pool.limit, self._breaker.open)

    async def send(
        self,
        envelope_from: str,
        recipients: Sequence[str],
        data: bytes | Deferred,
        before_dot: BeforeDot,
        *,
        envid: str = "",
        notify: Sequence[str] = (),
        originals: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send one mail (`data`: headers and body, any line ends, or where to read them) and return the server's yes.

        `before_dot` is awaited once at most, when all but the final dot is sent, with the replies that refused some
        recipients beside others. If it raises, the connection is dropped, the email is certainly not accepted, and
        its exception goes to the caller. An empty `envelope_from` is the null sender. `envid` and `notify` (FAILURE,
        DELAY, SUCCESS) ask for reports where the server offers DSN (RFC 3461). A report then quotes `envid`, for each
        recipient the ASCII address that `originals` maps it to, and only the headers of the email. Raises SmtpError;
        cancelled after `before_dot` returned, the email is ambiguous.
        """
        mail = envelope(envelope_from, recipients, envid, notify, originals or {})
        deadline = asyncio.get_running_loop().time() + self._timeouts.total
        if isinstance(data, bytes):
            connection = await self._pool.acquire(deadline)
            return await self._deliver(connection, mail, data, before_dot, deadline)
        try:
            connection = await self._acquire_with_memory(data, deadline)
            return await self._deliver(connection, mail, data, before_dot, deadline)
        finally:
            data.release()

    async def _acquire_with_memory(self, data: Deferred, deadline: float) -> Connection:
        """Return a connection, with the email's memory reserved; nobody waits for memory with a connection in hand."""
        connection = await self._pool.acquire(deadline)
        if data.reserve_now():
            return connection
        self._pool.release(connection)
        await data.reserve(deadline)
        return await self._pool.acquire(deadline, first=True)

    async def _deliver(
        self, connection: Connection, mail: Envelope, data: bytes | Deferred, before_dot: BeforeDot, deadline: float
    ) -> Reply:
        """Send on a connection, and give it back; once more on a new one where a kept one turned out to be dead."""
        kept = connection.mails > 0
        try:
            body = prepare(data if isinstance(data, bytes) else await data.read())
        except BaseException:
            self._pool.release(connection)
            raise
        try:
            reply = await connection.deliver(mail, body, before_dot, deadline)
        except SmtpError as error:
            if not (kept and _stale(error)):
                self._pool.release(connection)
                raise
        except BaseException:
            self._pool.release(connection)
            raise
        else:
            self._pool.release(connection)
            return reply
        connection = await self._pool.replace(connection, deadline)
        try:
            return await connection.deliver(mail, body, before_dot, deadline)
        finally:
            self._pool.release(connection)

    async def probe(self, sender: str = "") -> list[Step]:
        """Walk the whole way to the server, short of a mail, and return the steps with timings and how to mend them."""
        return await probe(self._dialer, sender)

    async def close(self, grace: float = 5.0) -> None:
        """Stop: mails under way have `grace` seconds, those that wait fail as temporary, idle connections say QUIT."""
        await self._pool.close(grace)


def _stale(error: SmtpError) -> bool:
    """True if a kept connection turned out to be dead before DATA: nothing of the mail was sent on it."""
    if error.phase not in {Phase.RSET, Phase.MAIL, Phase.RCPT, Phase.DATA}:
        return False
    return error.code == 421 or error.reason == "connection_lost" or error.phase is Phase.RSET
