"""Everything one run needs: servers, a fresh database, the mail server that misbehaves, proxies, the fleet."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from redis.exceptions import RedisError

from callboard_workers.ledger.sweeper import sweep
from callboard_workers.message import Message
from service.access import keys
from service.db import engine as db
from service.dev.chaos.caller import Caller
from service.dev.chaos.evidence import Books
from service.dev.chaos.fleet import Fleet
from service.dev.chaos.oracle import Evidence
from service.dev.chaos.proxy import Proxy
from service.dev.chaos.sink import Receivers, Sink
from service.dev.stack import Stack
from service.settings import Settings

LEASE = 6.0  # seconds
DRAIN = 120.0  # seconds
ANSWERED = 0.5  # seconds between fetching a doorbell and having refused it
TENANTS = ("academy", "bakery", "clinic")
MAIL_DELAY = 0.01  # seconds before each answer of the mail server, so that there is always mail under way


class NotInTime(AssertionError):
    """What was waited for did not come; the message names it and ends with the logs."""


class Site:
    """One database, its API and its workers. The API and the workers reach each server through a proxy of their own."""

    def __init__(self, stack: Stack, database_url: str, folder: Path, sink: Sink, proxies: dict[str, Proxy]) -> None:
        self.stack = stack
        self.sink = sink
        self.proxies = proxies
        self.books = Books(database_url, stack.redis_url)
        self.environ = {
            "DATABASE_URL": database_url,
            "REDIS_URL": stack.redis_url,
            "SECRET_KEY": "a secret of one run of chaos",
            "LOG_FORMAT": "json",
            "MAIL_FROM": "Academy <hello@academy.example>",
            "SMTP_HOST": sink.host,
            "SMTP_PORT": str(sink.port),
            "WORKER_LEASE": str(LEASE),
            "WORKER_CONCURRENCY": "50",
        }
        self.fleet = Fleet(folder, self.environ)
        self.caller = Caller(self.fleet.api.url, "")

    def through(self, *names: str) -> dict[str, str]:
        """The settings of a process that reaches servers through these proxies (api_db, db, redis, smtp)."""
        found: dict[str, str] = {}
        for name in names:
            port = self.proxies[name].port
            if name.endswith("db"):
                found["DATABASE_URL"] = _at(self.books.database_url, port)
            elif name == "redis":
                found["REDIS_URL"] = _at(self.books.redis_url, port)
            else:
                found["SMTP_PORT"] = str(port)
        return found

    async def api_keys(self, *tenants: str) -> list[str]:
        """An API key with every scope for each of the tenants."""
        engine = db.create_engine(Settings.from_env(self.environ))
        try:
            async with db.transaction(db.sessions(engine)) as session:
                return [(await keys.create(session, tenant, ["*"]))[1] for tenant in tenants]
        finally:
            await engine.dispose()

    async def open(self, workers: int = 1, *, api: tuple[str, ...] = (), through: tuple[str, ...] = ()) -> None:
        """Starts the API and workers, which reach the servers named through proxies."""
        self.caller = Caller(self.fleet.api.url, *await self.api_keys(*TENANTS))
        starts = [self.fleet.start_api(**self.through(*api))]
        await asyncio.gather(*starts, *(self.fleet.start_worker(**self.through(*through)) for _ in range(workers)))

    async def until(self, condition: Callable[[], Awaitable[object]], what: str, timeout: float = 60.0) -> None:
        """Waits for a condition. Raises NotInTime, with the ends of all logs, after `timeout` seconds."""
        give_up = time.monotonic() + timeout
        while not await condition():
            if time.monotonic() > give_up:
                logs = "\n".join(f"--- {each.name}\n{each.last_lines(25)}" for each in self.fleet.members)
                left = f"{dict(await self.books.unfinished())}; in Redis: {await self.books.held()}"
                raise NotInTime(f"not within {timeout:.0f} s: {what}\n{left}\n{logs}")
            await asyncio.sleep(0.1)

    async def drain(self, bound: float = DRAIN) -> float:
        """Lets time pass until nothing waits and nothing runs, at most `bound` seconds; returns how long it took."""
        started = time.monotonic()
        while await self.books.unfinished() and time.monotonic() - started < bound:
            await self.hasten()
            await asyncio.sleep(0.3)
        return time.monotonic() - started

    async def hasten(self) -> None:
        """What hours would do: what waits is due, and who died past the fence without a word is in doubt."""
        await self.books.make_due()
        rung: list[Message] = []
        engine = db.create_engine(Settings.from_env(self.environ))
        try:
            await sweep(engine, rung.extend, doubt=LEASE)
        finally:
            await engine.dispose()
        with contextlib.suppress(RedisError):  # the workers' own sweeper rings again
            await self.books.ring([message.id for message in rung])

    async def gather(self, drained_in: float = 0.0, unexpected: tuple[str, ...] = ()) -> Evidence:
        """What is to be judged: everything as it is, and as it is after every doorbell was rung again."""
        rows = await self.books.rows()
        await self.books.ring(list(rows))
        await self.until(self._silent, "every doorbell is answered")
        await asyncio.sleep(ANSWERED)
        return Evidence(
            accepted={key: frozenset(ids) for key, ids in self.caller.accepted.items()},
            rows=rows,
            recipients=dict(self.caller.recipients),
            received=self.sink.pairs(),
            refused=frozenset(self.sink.refused),
            later=await self.books.rows(),
            doorbells=await self.books.doorbells(),
            unexpected=(*self.caller.unexpected, *unexpected),
            drained_in=drained_in,
            drain_bound=DRAIN,
            peak_memory=max((member.peak_memory for member in self.fleet.members), default=0),
        )

    async def _silent(self) -> bool:
        """Whether no doorbell waits; what Redis still notes as held, because it lost an acknowledgement, is stale."""
        held = await self.books.held()
        return not any(messages for key, messages in held.items() if "unacked" not in key)

    async def close(self) -> None:
        await self.caller.close()
        await self.fleet.close()


@asynccontextmanager
async def open_site(stack: Stack, database_url: str, folder: Path) -> AsyncIterator[Site]:
    """A site without a process yet, over a database that is migrated; logs go to `folder`, which exists."""
    async with (
        Sink(delay=MAIL_DELAY, receivers=Receivers()) as sink,
        Proxy("127.0.0.1", stack.postgres.port) as api_db,
        Proxy("127.0.0.1", stack.postgres.port) as database,
        Proxy("127.0.0.1", stack.valkey.port) as redis,
        Proxy(sink.host, sink.port) as smtp,
    ):
        proxies = {"api_db": api_db, "db": database, "redis": redis, "smtp": smtp}
        site = Site(stack, database_url, folder, sink, proxies)
        try:
            yield site
        finally:
            await site.close()


def _at(url: str, port: int) -> str:
    head, _, rest = url.rpartition(":")
    return f"{head}:{port}/{rest.partition('/')[2]}"
