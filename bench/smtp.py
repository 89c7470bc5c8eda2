"""Mails per second, and CPU per mail, of ways to hand mail to one server: `python -m bench.smtp`.

The server is a process of its own that takes any mail and answers the final dot after a delay. Each way runs in every
round, in turn; the table shows medians.
"""

import argparse
import asyncio
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import cast

import aiosmtplib
import uvloop

from service.emails.smtp import Transport
from service.emails.smtp.pool import Bounds

DATA = b"Message-ID: <1@bench.test>\r\nSubject: bench\r\n\r\n" + (b"x" * 70 + b"\r\n") * 14
SENDER, RECIPIENT = "from@bench.test", "to@bench.test"
OFFERS = b"250-bench.test\r\n250-PIPELINING\r\n250-SIZE 100000000\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n"

Send = Callable[[], Awaitable[object]]


class Server(asyncio.Protocol):
    """Takes every mail; `delay` seconds pass before it says so."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.buffer = b""
        self.in_data = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.WriteTransport", transport)
        self.transport.write(b"220 bench.test ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        answers = b""
        while True:
            if self.in_data:
                _mail, dot, rest = self.buffer.partition(b"\r\n.\r\n")
                if not dot:
                    break
                self.buffer, self.in_data = rest, False
                self.later(b"250 2.0.0 Ok: queued as BENCH\r\n")
                continue
            line, end, rest = self.buffer.partition(b"\r\n")
            if not end:
                break
            self.buffer = rest
            verb = line[:4].upper()
            self.in_data = verb == b"DATA"
            answers += {b"EHLO": OFFERS, b"DATA": b"354 go\r\n", b"QUIT": b"221 bye\r\n"}.get(verb, b"250 2.1.0 Ok\r\n")
        if answers:
            self.transport.write(answers)

    def later(self, answer: bytes) -> None:
        if self.delay:
            asyncio.get_running_loop().call_later(self.delay, self.transport.write, answer)
        else:
            self.transport.write(answer)


async def serve(delay: float) -> None:
    """Run the server until killed; print its port."""
    server = await asyncio.get_running_loop().create_server(lambda: Server(delay), "127.0.0.1", 0, backlog=1000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def fence() -> None:
    """Stand where the ledger's fence stands."""


@contextlib.asynccontextmanager
async def library_each(port: int, connections: int) -> AsyncIterator[Send]:
    """aiosmtplib.send: a connection per mail."""
    room = asyncio.Semaphore(connections)

    async def send() -> object:
        async with room:
            smtp = aiosmtplib.SMTP(hostname="127.0.0.1", port=port, local_hostname="bench", start_tls=False)
            async with smtp:
                return await smtp.sendmail(SENDER, [RECIPIENT], DATA)

    yield send


@contextlib.asynccontextmanager
async def library_kept(port: int, connections: int) -> AsyncIterator[Send]:
    """aiosmtplib's SMTP objects, kept in a queue."""
    free: asyncio.LifoQueue[aiosmtplib.SMTP] = asyncio.LifoQueue()
    for _ in range(connections):
        free.put_nowait(aiosmtplib.SMTP(hostname="127.0.0.1", port=port, local_hostname="bench", start_tls=False))

    async def send() -> object:
        smtp = await free.get()
        try:
            if not smtp.is_connected:
                await smtp.connect()
            return await smtp.sendmail(SENDER, [RECIPIENT], DATA)
        finally:
            free.put_nowait(smtp)

    yield send
    while not free.empty():
        free.get_nowait().close()


@contextlib.asynccontextmanager
async def ours(port: int, connections: int, mails_per_connection: int) -> AsyncIterator[Send]:
    """Our transport."""
    bounds = Bounds(size=connections, mails_per_connection=mails_per_connection)
    transport = Transport("127.0.0.1", port, bounds=bounds)
    yield lambda: transport.send(SENDER, [RECIPIENT], DATA, fence)
    await transport.close()


WAYS = {
    "aiosmtplib, a connection per mail": library_each,
    "aiosmtplib, connections kept": library_kept,
    "ours, a connection per mail": lambda port, connections: ours(port, connections, 1),
    "ours, connections kept": lambda port, connections: ours(port, connections, 1_000_000),
}


async def run(way: str, port: int, mails: int, connections: int) -> tuple[float, float]:
    """Send the mails; return mails per second and CPU milliseconds per mail."""
    async with WAYS[way](port, connections) as send:
        await asyncio.gather(*(send() for _ in range(connections)))
        wall, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(send() for _ in range(mails)))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return mails / wall, cpu / mails * 1000


@contextlib.contextmanager
def server(delay: float) -> Iterator[int]:
    """Start the server in a process of its own; yield its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.smtp", "--serve", str(delay)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--mails", type=int, default=2000)
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if args.serve is not None:
        uvloop.run(serve(args.serve))
        return
    print(f"{'server':>7}  {'way':<35} {'mails/s':>9} {'CPU ms/mail':>12}")
    for delay in (0.0, 0.2):
        results: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        with server(delay) as port:
            for _ in range(args.rounds):
                for way, figures in results.items():
                    figures.append(uvloop.run(run(way, port, args.mails, args.connections)))
        for way, figures in results.items():
            rate, cpu = (statistics.median(column) for column in zip(*figures, strict=True))
            print(f"{delay * 1000:>4.0f} ms  {way:<35} {rate:>9,.0f} {cpu:>12.3f}", flush=True)


if __name__ == "__main__":
    main()
