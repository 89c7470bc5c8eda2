"""`smtp`: mails per second, and CPU for each, of ways to hand mail to one server, with and without a worker.

The server is a process of its own that takes any mail and answers the final dot after a delay.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import cast

import aiosmtplib
import uvloop

from bench import mails, running
from bench.options import Options
from bench.peers import kit
from bench.progress import say
from bench.report import Column, Report, Target
from bench.servers import Servers
from service.smtp import ServerReply, Transport
from service.smtp.pool import Bounds

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
                kit.tick()
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


async def fence(_: Mapping[str, ServerReply]) -> None:
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


OURS = "ours, connections kept"
CONNECTIONS = mails.CONNECTIONS
COLUMNS = (Column("rate", "mails/s"), Column("cpu", "CPU µs/mail"))
WAYS: dict[str, Callable[[int, int], contextlib.AbstractAsyncContextManager[Send]]] = {
    "aiosmtplib, a connection per mail": library_each,
    "aiosmtplib, connections kept": library_kept,
    "ours, a connection per mail": lambda port, connections: ours(port, connections, 1),
    OURS: lambda port, connections: ours(port, connections, 1_000_000),
}


async def run_way(way: str, port: int, mails: int, connections: int) -> tuple[float, float]:
    """Send the mails; return mails per second and CPU milliseconds per mail."""
    async with WAYS[way](port, connections) as send:
        await asyncio.gather(*(send() for _ in range(connections)))
        wall, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(send() for _ in range(mails)))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return mails / wall, cpu / mails * 1000


def transports(options: Options) -> Report:
    """Each way to hand mails over from one loop, without any queue."""
    title = f"Handing mails to a server that takes 200 ms, {CONNECTIONS} connections, without any queue"
    report = Report("transports", title, COLUMNS, OURS, "cpu")
    count = 500 if options.quick else 2000
    with running.folder() as sink, mails.mail_server(sink) as port:
        for number in range(options.rounds):
            for way in WAYS:
                say(f"smtp, round {number + 1}/{options.rounds}: {way}")
                rate, cpu = uvloop.run(run_way(way, port, count, CONNECTIONS))
                report.add(way, {"rate": rate, "cpu": cpu * 1000})
    report.targets = [
        Target(OURS, "cpu", ("aiosmtplib, connections kept",), most=0.5, less_is_better=True, text="CPU for each mail")
    ]
    return report


def run(options: Options, servers: Servers) -> list[Report]:
    """`smtp`: our transport beside aiosmtplib, then our worker beside Celery's threads and smtplib."""
    return [transports(options), *mails.run(options, servers)]


if __name__ == "__main__":
    if sys.argv[1:2] != ["--serve"]:
        sys.exit("python -m bench smtp")
    uvloop.run(serve(float(sys.argv[2])))
