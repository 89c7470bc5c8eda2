"""The connections of httpcore, made only to addresses that a guard has checked, and read only within a budget."""

import ssl
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any

import httpcore
import msgspec

from service.egress.resolver import Guard

TRIES = 4  # addresses of one name that are tried


class Budget(msgspec.Struct):
    """How many bytes of an answer may still be read."""

    left: int


class Exhausted(httpcore.ReadError):
    """The answer is longer than it may be."""


budget: ContextVar[Budget | None] = ContextVar("outbound.budget", default=None)
"""The budget of the request that reads, whichever connection it was given."""


class Lines(httpcore.AsyncNetworkBackend):
    """Connects to the checked addresses of a name; the name stays what TLS and the Host header speak of."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._plain = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to one address after the other. Raises AddressRefused, and what httpcore raises."""
        failed: Exception | None = None
        for address in (await self._guard.resolve(host, port))[:TRIES]:
            try:
                line = await self._plain.connect_tcp(address, port, timeout, local_address, socket_options)
                return _Metered(line)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
        raise failed or httpcore.ConnectError("the name has no address")

    async def connect_unix_socket(self, *_args: Any, **_more: Any) -> httpcore.AsyncNetworkStream:
        """Refuse: nobody outside has a socket here."""
        raise httpcore.ConnectError("sockets of this machine are not called")

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self._plain.sleep(seconds)


class _Metered(httpcore.AsyncNetworkStream):
    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        allowed = budget.get()
        if allowed is None:
            return await self._inner.read(max_bytes, timeout)
        if allowed.left <= 0:
            raise Exhausted("the answer is longer than is read")
        part = await self._inner.read(min(max_bytes, allowed.left), timeout)
        allowed.left -= len(part)
        return part

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        return _Metered(await self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
