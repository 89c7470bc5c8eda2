"""Kept connections to one server: bounded, reused, handed out by priority, then fairly by tenant.

The limit is what was configured until the server says 421 to one connection too many; then it is what the server
bears, and creeps up again by one at a time. Connections that die while idle are dropped the moment they do.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from callboard_workers.common.fair import FairQueue, current_turn
from service.smtp.breaker import Breaker
from service.smtp.connection import Connection
from service.smtp.errors import Backoff, Kind, SmtpError
from service.smtp.phases import Phase

log = structlog.get_logger(__name__)

Dial = Callable[[float], Awaitable[Connection]]
Waiter = asyncio.Future[Connection | None]
"""Gets a connection, or None for a place in which to open one."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How much a pool may hold, and for how long (seconds)."""

    size: int = 10
    waiting: int = 10_000
    mails_per_connection: int = 1000
    idle: float = 30.0
    grow_after: float = 30.0


class Pool:
    """Lends connections. Everything happens on one event loop."""

    def __init__(self, dial: Dial, bounds: Bounds, breaker: Breaker) -> None:
        self._dial = dial
        self._bounds = bounds
        self._breaker = breaker
        self._idle: deque[Connection] = deque()  # the right end was used last and is lent first
        self._lent: set[Connection] = set()
        self._waiters: FairQueue[Waiter] = FairQueue()
        self._ahead: deque[Waiter] = deque()
        """Callers that had their turn already and come before all others."""
        self._leaving: set[asyncio.Task[None]] = set()
        self._open = 0  # places taken: idle, lent, or being dialled
        self._changed = 0.0
        self._reaper: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        self._closing = False
        self.limit = bounds.size

    @property
    def open(self) -> int:
        """Places taken: connections idle, lent, or being opened."""
        return self._open

    @property
    def idle(self) -> int:
        """Connections kept for the next mail."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """Callers in the queue."""
        return len(self._waiters) + len(self._ahead)

    async def acquire(self, deadline: float, *, first: bool = False) -> Connection:
        """Return a connection: a kept one, a new one, or one that comes free, in the turn of the running attempt.

        `first`: the caller had a connection, gave it back unused, and comes before all others. Raises SmtpError
        (temporary): `pool_exhausted` at the deadline (loop time), `pool_full`, `breaker_open`,
        `closing`, or why no connection could be opened.
        """
        self._check_open()
        self._grow()
        if first or not self.waiting:
            if (kept := self._take_idle()) is not None:
                return kept
            if self._open < self.limit:
                self._open += 1
                return await self._connect(deadline)
        return await self._wait(deadline, first=first)

    async def replace(self, dead: Connection, deadline: float) -> Connection:
        """Return a new connection in the place of a lent one that turned out to be dead."""
        self._lent.discard(dead)
        dead.wire.abort()
        return await self._connect(deadline)

    def release(self, connection: Connection) -> None:
        """Take a lent connection back."""
        self._lent.discard(connection)
        worn = connection.mails >= self._bounds.mails_per_connection
        if not connection.usable or worn or self._closing or self._open > self.limit:
            self._dismiss(connection)
        elif (waiter := self._next_waiter()) is not None:
            self._lend(connection)
            waiter.set_result(connection)
        else:
            self._keep(connection)

    async def close(self, grace: float) -> None:
        """Let lent connections come back for `grace` seconds, then drop them; say QUIT to the idle ones."""
        self._closing = True
        if self._reaper is not None:
            self._reaper.cancel()
        while (waiter := self._next_waiter()) is not None:
            waiter.set_exception(_unavailable("closing", "the transport is closing"))
        while self._idle:
            self._dismiss(self._idle.pop())
        if self._open:
            self._empty.clear()
            try:
                async with asyncio.timeout(grace):
                    await self._empty.wait()
            except TimeoutError:
                for connection in tuple(self._lent):
                    connection.wire.abort()
        if self._leaving:
            await asyncio.wait(self._leaving)

    async def _connect(self, deadline: float) -> Connection:
        """Open a connection in a place already taken."""
        try:
            connection = await self._try(deadline)
        except SmtpError as error:
            crowded = self._too_many(error)
            if crowded:
                self._shrink(error)
            self._free_place()
            if not crowded:
                raise
            return await self._wait(deadline, first=True)
        except BaseException:
            self._free_place()
            raise
        self._lend(connection)
        return connection

    async def _try(self, deadline: float) -> Connection:
        """Dial, if the breaker lets us, and tell it what came of it."""
        self._check_open()
        if (seconds := self._breaker.wait()) > 0:
            raise _unavailable("breaker_open", "the server did not answer several times in a row", seconds)
        try:
            connection = await self._dial(deadline)
        except SmtpError as error:
            if not self._too_many(error):
                self._breaker.failed()
                if self._breaker.open:
                    log.warning("smtp_breaker_opened", reason=error.reason, host=error.host, code=error.code)
            raise
        except BaseException:
            self._breaker.abandoned()
            raise
        self._breaker.succeeded()
        return connection

    async def _wait(self, deadline: float, *, first: bool) -> Connection:
        """Stand in the queue until somebody hands over a connection, or a place to open one in."""
        if not first and self.waiting >= self._bounds.waiting:
            raise _unavailable("pool_full", f"{self.waiting} emails already wait for a connection")
        if first and (kept := self._take_idle()) is not None:
            return kept
        loop = asyncio.get_running_loop()
        waiter: Waiter = loop.create_future()
        if first:
            self._ahead.append(waiter)
        else:
            self._waiters.push(waiter, current_turn())
        timer = loop.call_at(deadline, _give_up, waiter)
        try:
            connection = await waiter
        except SmtpError:
            self._leave_queue(waiter)
            raise
        except asyncio.CancelledError:
            self._leave_queue(waiter)
            self._hand_back(waiter)
            raise
        finally:
            timer.cancel()
        return connection if connection is not None else await self._connect(deadline)

    def _leave_queue(self, waiter: Waiter) -> None:
        self._waiters.discard(waiter)
        with contextlib.suppress(ValueError):
            self._ahead.remove(waiter)

    def _hand_back(self, waiter: Waiter) -> None:
        """Return what a caller was given in the moment it was cancelled."""
        if waiter.cancelled() or waiter.exception() is not None:
            return
        connection = waiter.result()
        if connection is None:
            self._free_place()
        else:
            self.release(connection)

    def _next_waiter(self) -> Waiter | None:
        while (waiter := self._ahead.popleft() if self._ahead else self._waiters.pop()) is not None:
            if not waiter.done():
                return waiter
        return None

    def _free_place(self) -> None:
        self._open -= 1
        if self._open == 0:
            self._empty.set()
        self._offer_places()

    def _offer_places(self) -> None:
        while self._open < self.limit and (waiter := self._next_waiter()) is not None:
            self._open += 1
            waiter.set_result(None)

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            connection.wire.on_news = None
            if connection.usable:
                self._lend(connection)
                return connection
            self._dismiss(connection)
        return None

    def _lend(self, connection: Connection) -> None:
        self._lent.add(connection)

    def _keep(self, connection: Connection) -> None:
        connection.wire.on_news = lambda: self._evict(connection)
        self._idle.append(connection)
        if self._reaper is None:
            self._reaper = asyncio.get_running_loop().call_later(self._bounds.idle, self._reap)

    def _evict(self, connection: Connection) -> None:
        """A kept connection spoke or died: it is of no use."""
        if connection in self._idle:
            self._idle.remove(connection)
            self._dismiss(connection)

    def _dismiss(self, connection: Connection) -> None:
        """Close a connection without waiting for it; its place is free once the server has let it go."""
        connection.wire.on_news = None
        if connection.usable:
            task = asyncio.get_running_loop().create_task(connection.quit())
            self._leaving.add(task)
            task.add_done_callback(self._gone)
        else:
            connection.wire.abort()
            self._free_place()

    def _gone(self, task: "asyncio.Task[None]") -> None:
        self._leaving.discard(task)
        self._free_place()

    def _reap(self) -> None:
        self._reaper = None
        loop = asyncio.get_running_loop()
        while self._idle and loop.time() - self._idle[0].used_at >= self._bounds.idle:
            self._dismiss(self._idle.popleft())
        if self._idle:
            self._reaper = loop.call_at(self._idle[0].used_at + self._bounds.idle, self._reap)

    def _too_many(self, error: SmtpError) -> bool:
        """True if the server refused one connection too many, while others of ours are open or on their way."""
        crowded = error.code == 421 or error.reason == "too_many_connections"
        return crowded and self._open > 1

    def _shrink(self, error: SmtpError) -> None:
        self.limit = max(1, min(self.limit, self._open - 1))
        self._changed = asyncio.get_running_loop().time()
        log.info("smtp_limit_learned", limit=self.limit, host=error.host, code=error.code)

    def _grow(self) -> None:
        """After a while without refusals, dare one connection more than the server bore."""
        now = asyncio.get_running_loop().time()
        if self.limit < self._bounds.size and now - self._changed >= self._bounds.grow_after:
            self.limit += 1
            self._changed = now
            self._offer_places()

    def _check_open(self) -> None:
        if self._closing:
            raise _unavailable("closing", "the transport is closing")


def _give_up(waiter: Waiter) -> None:
    if not waiter.done():
        waiter.set_exception(_unavailable("pool_exhausted", "no connection came free in time"))


def _unavailable(reason: str, text: str, retry_after: float | None = None) -> SmtpError:
    return SmtpError(
        Phase.CONNECT, None, text, Kind.TEMPORARY, reason=reason, backoff=Backoff.SHORT, retry_after=retry_after
    )
