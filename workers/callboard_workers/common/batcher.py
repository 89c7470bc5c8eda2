"""Merge what is concurrent: many small requests of one process become few statements."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar, cast

from callboard_workers.common.shared_timeout import Patience
from callboard_workers.context import of_nobody
from callboard_workers.errors import Overloaded

T = TypeVar("T")
R = TypeVar("R")

Waiting = tuple[T, "asyncio.Future[R]"]


def poisoned(error: Exception) -> bool:
    """Whether one bad item can have failed the whole batch: its data or a constraint, never the connection."""
    refusal = getattr(sys.modules.get("asyncpg"), "PostgresError", None)  # a process without a database loads none
    if refusal is not None and isinstance(error, refusal):
        return str(getattr(error, "sqlstate", "") or "")[:2] in {"22", "23"}
    # asyncpg refuses to encode a value: DataError, itself a ValueError
    return isinstance(error, TypeError | ValueError | OverflowError)


class Batcher(Generic[T, R]):
    """Collects items while earlier batches are on their way and hands them to `flush` together.

    An item waits only while `in_flight` batches are being flushed, or `head_start` holds it back: beside one batch
    another leaves when it is full or the first has been away for so many seconds. Fewer, larger batches cost less for
    each item, and one that hangs holds nobody up for longer than that. `flush` is atomic (one statement or one
    transaction) and answers with one result, or exception, per item, in order. A batch that fails
    because of an item's data is halved until the culprit is alone. A waiter cancelled before its flush is never
    flushed; of one cancelled during it, `orphaned` gets the result. More than `limit` items waiting: Overloaded.
    With `patience` (seconds) a waiter gets TimeoutError after so long, and counts as cancelled. A batch holds at most
    `max_batch` items, and where `weigh` is given items of `max_weight` together, or one that is heavier by itself.
    """

    def __init__(
        self,
        flush: Callable[[list[T]], Awaitable[Sequence[R | Exception]]],
        max_batch: int = 200,
        in_flight: int = 2,
        *,
        limit: int = 20_000,
        isolates: Callable[[Exception], bool] = poisoned,
        orphaned: Callable[[R], None] | None = None,
        patience: float | None = None,
        weigh: Callable[[T], int] | None = None,
        max_weight: int = 0,
        head_start: float = 0.0,
    ) -> None:
        self._flush = flush
        self._max_batch = max_batch
        self._in_flight = in_flight
        self._limit = limit
        self._isolates = isolates
        self._orphaned = orphaned
        self._patience = None if patience is None else Patience(patience)
        self._weigh = weigh
        self._max_weight = max_weight
        self._waiting: deque[Waiting[T, R]] = deque()
        self._head_start = head_start
        self._flushes: dict[asyncio.Task[None], float] = {}
        """Who flushes, and since when (the loop's time)."""
        self._relief: asyncio.TimerHandle | None = None
        self._closed = False

    async def submit(self, item: T) -> R:
        """Hand in one item; returns, or raises, what `flush` answered for it."""
        if self._closed:
            raise Overloaded("the batcher is closed")
        if len(self._waiting) >= self._limit:
            raise Overloaded(f"{self._limit} items are waiting already")
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._start()
        return await (future if self._patience is None else self._patience.bear(future))

    async def close(self) -> None:
        """Take nothing more; return when everything handed in was answered."""
        self._closed = True
        while self._flushes:
            await asyncio.wait(self._flushes)

    def _start(self) -> None:
        if len(self._flushes) >= self._in_flight:
            return
        loop = asyncio.get_running_loop()
        ahead = self._ahead(loop.time())
        if ahead <= 0:
            task = asyncio.create_task(self._drain(), context=of_nobody())
            self._flushes[task] = loop.time()
            task.add_done_callback(lambda done: self._flushes.pop(done, None))
        elif self._relief is None:
            self._relief = loop.call_later(ahead, self._relieve, context=contextvars.Context())

    def _relieve(self) -> None:
        self._relief = None
        if self._waiting:
            self._start()

    def _ahead(self, now: float, but: asyncio.Task[None] | None = None) -> float:
        """The seconds for which the batches on their way, `but` one, hold back what waits; 0 for nothing."""
        if not self._head_start or len(self._waiting) >= self._max_batch:
            return 0.0
        since = [left for task, left in self._flushes.items() if task is not but]
        return max(0.0, min(since) + self._head_start - now) if since else 0.0

    async def _drain(self) -> None:
        """Flush until nothing waits, or another does it for all. It stops counting in the very step that finds so, not
        when its callbacks run: whoever hands something in after that starts another."""
        me, loop = cast("asyncio.Task[None]", asyncio.current_task()), asyncio.get_running_loop()
        try:
            while not self._ahead(now := loop.time(), me) and (batch := self._take()):
                self._flushes[me] = now
                await self._answer(batch)
        finally:
            self._flushes.pop(me, None)
        if self._waiting:
            self._start()

    def _take(self) -> list[Waiting[T, R]]:
        batch: list[Waiting[T, R]] = []
        weight, weigh = 0, self._weigh
        while self._waiting and len(batch) < self._max_batch:
            waiting = self._waiting[0]
            if not waiting[1].done():
                weight += 0 if weigh is None else weigh(waiting[0])
                if batch and weight > self._max_weight:
                    break
                batch.append(waiting)
            self._waiting.popleft()
        return batch

    async def _answer(self, batch: list[Waiting[T, R]]) -> None:
        try:
            results = await self._flush([item for item, _ in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"flush answered {len(results)} of {len(batch)} items")
        except Exception as error:
            if len(batch) > 1 and self._isolates(error):
                await self._answer_halves(batch)
            else:
                _refuse(batch, error)
        except BaseException as error:  # the drain itself is being cancelled: let nobody wait for ever
            _refuse(batch, error)
            raise
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    _set(future, result)
                elif self._orphaned is not None and not isinstance(result, Exception):
                    self._orphaned(result)

    async def _answer_halves(self, batch: list[Waiting[T, R]]) -> None:
        middle = len(batch) // 2
        for half in (batch[:middle], batch[middle:]):
            if alive := [waiting for waiting in half if not waiting[1].done()]:
                await self._answer(alive)


def _set(future: asyncio.Future[R], result: R | Exception) -> None:
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


def _refuse(batch: list[Waiting[T, R]], error: BaseException) -> None:
    for _, future in batch:
        if future.done():
            continue
        if isinstance(error, Exception):
            # one exception object raised in many tasks would grow one shared traceback
            future.set_exception(error if len(batch) == 1 else _copy(error))
        else:
            future.cancel()


def _copy(error: Exception) -> Exception:
    try:
        copy = type(error)(*error.args)
    except Exception:
        return error
    copy.__cause__ = error
    return copy
