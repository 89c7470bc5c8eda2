"""Finding and reaching a host: names to addresses without blocking the loop, then the first address that answers."""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Awaitable, Callable

Address = tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int]]


Resolve = Callable[[str, int], Awaitable[list[str]]]


class Resolver:
    """Looks one host up, never twice at the same time, and remembers which address answered last."""

    def __init__(self, host: str, port: int, resolve: Resolve | None = None) -> None:
        """`resolve` stands in for the system's resolver: it returns IP addresses, and may refuse."""
        self._own = resolve
        self._host = host
        self._port = port
        self._lookup: asyncio.Task[list[Address]] | None = None
        self._last: Address | None = None

    async def addresses(self) -> list[Address]:
        """Return the host's addresses, the one that answered last first. Raises OSError.

        A lookup occupies a thread until the system's resolver gives up, so callers share one.
        """
        if self._own is None and (literal := _literal(self._host, self._port)) is not None:
            return [literal]
        if self._lookup is None or self._lookup.done():
            self._lookup = asyncio.create_task(self._resolve())
        found = await asyncio.shield(self._lookup)
        return sorted(found, key=lambda address: address != self._last)

    async def connect(self, addresses: list[Address], timeout: float) -> socket.socket:
        """Return a socket connected to the first address that answers; each gets its share of `timeout` (seconds).

        Raises OSError: that of the last address tried.
        """
        failure: OSError = OSError(f"{self._host} has no address")
        for address in addresses:
            try:
                async with asyncio.timeout(timeout / len(addresses)):
                    sock = await _connect(address)
            except OSError as error:
                failure = error if str(error) else TimeoutError(f"{address[1][0]} did not answer")
            else:
                self._last = address
                return sock
        raise failure

    async def _resolve(self) -> list[Address]:
        if self._own is not None:
            given = [_literal(address, self._port) for address in await self._own(self._host, self._port)]
            return [address for address in given if address is not None]
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        return [(family, address) for family, _, _, _, address in found]  # type: ignore[misc]


def _literal(host: str, port: int) -> Address | None:
    """Return the address if the host is one already."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return None
    if ip.version == 4:
        return socket.AF_INET, (host, port)
    return (socket.AF_INET6, (host, port, 0, 0)) if "%" not in host else None


async def _connect(address: Address) -> socket.socket:
    sock = socket.socket(address[0], socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        await asyncio.get_running_loop().sock_connect(sock, address[1])
    except BaseException:
        sock.close()
        raise
    return sock
