"""Decides where a connection may go: a name is resolved once, every address of it is checked, and those are connected.

Whoever connects takes the addresses from here and never resolves the name again, so an answer that changes between the
check and the connection (DNS rebinding) changes nothing.
"""

import asyncio
import socket
import time
from concurrent.futures import ThreadPoolExecutor

from callboard_workers.context import of_nobody
from service.egress import ip_ranges
from service.egress.urls import AddressRefused, Target, check_host, parse
from service.settings import Settings

KEEP = 30.0  # seconds that an answer of the resolver is used again
MOST_KEPT = 10_000
RESOLVE_WITHIN = 5.0  # seconds
RESOLVERS = 16  # names looked up at a time: one that hangs holds one of them
MOST_ADDRESSES = 4


class Guard:
    """What may be called. `private` allows loopback, private networks and any port: for development and tests."""

    def __init__(self, *, private: bool = False, ports: frozenset[int] = frozenset({80, 443})) -> None:
        self.private = private
        self.ports = ports
        self._threads = ThreadPoolExecutor(RESOLVERS, thread_name_prefix="resolve")
        self._known: dict[tuple[str, int], tuple[float, list[str]]] = {}
        self._looking: dict[tuple[str, int], asyncio.Task[list[str]]] = {}

    @classmethod
    def of(cls, settings: Settings) -> "Guard":
        """Make the guard that the settings ask for."""
        return cls(private=settings.outbound_private, ports=frozenset(settings.outbound_ports))

    def target(self, url: str) -> Target:
        """Take a URL apart, as far as it can be judged without the network. Raises AddressRefused."""
        return parse(url, ports=self.ports, private=self.private)

    async def resolve(self, host: str, port: int) -> list[str]:
        """Find the addresses of `host` that may be connected to, all of them checked, at most four.

        Raises AddressRefused where a single one leads inside, and OSError (TimeoutError after 5 s) where the name
        cannot be resolved. An address that stands in the place of a name is checked all the same.
        """
        key = (check_host(host, private=self.private), port)
        known = self._known.get(key)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        task = self._looking.get(key)
        if task is None:  # whoever asks for the same name meanwhile gets the same answer
            task = self._looking[key] = asyncio.create_task(self._look(key), context=of_nobody())
            task.add_done_callback(lambda found: self._over(key, found))
        async with asyncio.timeout(RESOLVE_WITHIN):
            return await asyncio.shield(task)

    def _over(self, key: tuple[str, int], task: asyncio.Task[list[str]]) -> None:
        self._looking.pop(key, None)
        if not task.cancelled():
            task.exception()  # whoever asked may have gone: then nobody else hears what was wrong

    async def _look(self, key: tuple[str, int]) -> list[str]:
        found = await asyncio.get_running_loop().run_in_executor(self._threads, _resolve, *key)
        for each in found:
            address = ip_ranges.read(each.partition("%")[0])
            if address is None or not ip_ranges.is_allowed(address, private=self.private):
                raise AddressRefused(f"{key[0]} leads to an address that is private, reserved or local.")
        if len(self._known) >= MOST_KEPT:
            self._known.clear()
        self._known[key] = time.monotonic() + KEEP, found
        return found

    def close(self) -> None:
        """Let go of the threads; those that hang end with their resolver."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _resolve(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
