"""Hand out what is scarce by priority, then fairly by tenant: a queue, and a limiter built on it.

Wherever work waits, it waits in one of these. `FairQueue` orders what waits for places that its owner counts itself
(SMTP connections); `FairLimiter` also counts them (renderers, bytes of memory):

    renderers = FairLimiter(2, waiting=200)
    async with renderers.hold():                       # priority and tenant of the running attempt
        ...
    async with renderers.hold(turn=Turn(tenant=id)):   # outside of one, as in the API

Both are start-time fair queueing (Goyal, Vin and Cheng, 1996) at two levels: priorities share by WEIGHTS, tenants of
one priority share equally, one tenant's work keeps its order. Who waits for the first time comes next in its class, who
was served a lot comes later, and nobody starves: among n that wait each operation takes O(log n).
"""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Generic, TypeVar

import msgspec

from callboard_workers.context import running
from callboard_workers.errors import Overloaded

T = TypeVar("T", bound=Hashable)
K = TypeVar("K")

NORMAL = 6
WEIGHTS = {0: 512.0, 3: 64.0, 6: 8.0, 9: 1.0}
"""Shares of the priorities while all of them wait, by Celery's number: each gets eight times what the next one gets."""


class Turn(msgspec.Struct, frozen=True):
    """On whose behalf something waits: a priority (0, the most urgent, to 9) and a tenant, None for no tenant's."""

    priority: int = NORMAL
    tenant: Hashable = None


def current_turn() -> Turn:
    """Return the turn of the running attempt; outside of one, normal priority and no tenant."""
    context = running.get()
    return _NOBODY if context is None else Turn(context.priority, context.tenant_id)


_NOBODY = Turn()


class FairQueue(Generic[T]):
    """Items that wait, each for a turn and at a cost; the next one is the first of the tenant that was served least.

    `cost` is what serving the item takes of a tenant's share, in any one unit. Items are hashable and wait once.
    """

    def __init__(self) -> None:
        self._classes: _Shares[int] = _Shares(ranked=True)
        self._tenants: dict[int, _Shares[Hashable]] = {}
        self._items: dict[tuple[int, Hashable], OrderedDict[T, float]] = {}
        self._places: dict[T, tuple[int, Hashable]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, item: T) -> bool:
        return item in self._places

    def push(self, item: T, turn: Turn, cost: float = 1.0) -> None:
        """Let an item wait."""
        step = _class_of(turn.priority)
        place = self._places[item] = step, turn.tenant
        items = self._items.setdefault(place, OrderedDict())
        items[item] = cost
        if len(items) == 1:
            self._classes.add(step)
            self._tenants.setdefault(step, _Shares()).add(turn.tenant)

    def first(self, fits: Callable[[T], bool] | None = None) -> T | None:
        """Return the item that is next, of those that `fits` accepts; None where there is none. It goes on waiting.

        Only the first item of each tenant and priority is looked at.
        """

        def look(step: int, tenant: Hashable) -> T | None:
            item = next(iter(self._items[step, tenant]))
            return item if fits is None or fits(item) else None

        return self._classes.find(lambda step: self._tenants[step].find(partial(look, step)))

    def serve(self, item: T) -> None:
        """Take an item out that gets what it waited for; its tenant is charged its cost."""
        step, tenant = place = self._places.pop(item)
        cost = self._items[place].pop(item)
        tenant_waits = bool(self._items[place])
        tenants = self._tenants[step]
        tenants.charge(tenant, cost, waits=tenant_waits)
        self._classes.charge(step, cost / WEIGHTS[step], waits=bool(tenants))
        if not tenant_waits:
            del self._items[place]
        self._tidy(step)

    def pop(self) -> T | None:
        """Take out and return the item that is next; None where nothing waits."""
        item = self.first()
        if item is not None:
            self.serve(item)
        return item

    def discard(self, item: T) -> None:
        """Take an item out that waits no more, at no cost; nothing where it does not wait."""
        place = self._places.pop(item, None)
        if place is None:
            return
        step, tenant = place
        del self._items[place][item]
        if not self._items[place]:
            del self._items[place]
            self._tenants[step].drop(tenant)
            if not self._tenants[step]:
                self._classes.drop(step)
        self._tidy(step)

    def _tidy(self, step: int) -> None:
        """Forget who was served how much where nobody waits any more."""
        if not self._tenants[step]:
            del self._tenants[step]
        if not self._places:
            self._classes = _Shares(ranked=True)


class FairLimiter:
    """So many units of something, handed out in the order of a FairQueue. One event loop; safe to cancel.

    `waiting`: how many callers may wait, then Overloaded. `share`: the part of all units that one tenant may hold while
    it has any; what is left serves the others, however long that tenant keeps its part.
    """

    def __init__(self, capacity: int, *, waiting: int = 10_000, share: float = 1.0) -> None:
        self.capacity = capacity
        self._limit = waiting
        self._share = share
        self._held: dict[Hashable, int] = {}
        self._taken = 0
        self._queue: FairQueue[asyncio.Future[None]] = FairQueue()
        self._asked: dict[asyncio.Future[None], tuple[Turn, int]] = {}

    @property
    def free(self) -> int:
        """Units that nobody holds."""
        return self.capacity - self._taken

    @property
    def waiting(self) -> int:
        """Callers that wait."""
        return len(self._queue)

    def try_acquire(self, amount: int = 1, *, turn: Turn | None = None) -> bool:
        """Take units if they are free, the tenant may have them and no one waits; True where they were taken."""
        turn, amount = turn or current_turn(), self._bounded(amount)
        if self._queue or not self._allowed(turn, amount) or amount > self.free:
            return False
        self._take(turn, amount)
        return True

    async def acquire(self, amount: int = 1, *, turn: Turn | None = None) -> None:
        """Take units, or wait for one's turn to take them; more than there are means all of them. Raises Overloaded."""
        turn = turn or current_turn()
        if self.try_acquire(amount, turn=turn):
            return
        if len(self._queue) >= self._limit:
            raise Overloaded(f"{self._limit} callers wait already")
        amount = self._bounded(amount)
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked[granted] = turn, amount
        self._queue.push(granted, turn, amount)
        self._grant()  # others may wait for what they may not have yet
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self.release(amount, turn=turn)
            else:
                self._asked.pop(granted, None)
                self._queue.discard(granted)
                self._grant()
            raise

    def release(self, amount: int = 1, *, turn: Turn | None = None) -> None:
        """Give units back, as many as were asked for, with the turn they were taken for."""
        turn, amount = turn or current_turn(), self._bounded(amount)
        self._taken -= amount
        if (left := self._held[turn.tenant] - amount) > 0:
            self._held[turn.tenant] = left
        else:
            del self._held[turn.tenant]
        self._grant()

    @asynccontextmanager
    async def hold(self, amount: int = 1, *, turn: Turn | None = None) -> AsyncIterator[None]:
        """Hold units for a while. Raises Overloaded."""
        turn = turn or current_turn()
        await self.acquire(amount, turn=turn)
        try:
            yield
        finally:
            self.release(amount, turn=turn)

    def _grant(self) -> None:
        """Serve who is next for as long as there is enough; nobody overtakes one that only lacks free units."""
        while self._queue and (granted := self._queue.first(self._may_have)) is not None:
            turn, amount = self._asked[granted]
            if amount > self.free:
                return
            self._queue.serve(granted)
            del self._asked[granted]
            if not granted.done():
                self._take(turn, amount)
                granted.set_result(None)

    def _may_have(self, granted: asyncio.Future[None]) -> bool:
        return self._allowed(*self._asked[granted])

    def _allowed(self, turn: Turn, amount: int) -> bool:
        held = self._held.get(turn.tenant, 0)
        return self._share >= 1 or not held or held + amount <= self._share * self.capacity

    def _bounded(self, amount: int) -> int:
        return min(amount, self.capacity)

    def _take(self, turn: Turn, amount: int) -> None:
        self._taken += amount
        self._held[turn.tenant] = self._held.get(turn.tenant, 0) + amount


class _Shares(Generic[K]):
    """Start-time fair queueing among keys: which wait, and when in virtual time each is next.

    A key has one entry in the heap; the time stands at the entry that was served last. A key that stops waiting keeps
    its entry until the time comes to it: leaving and coming again gains nothing. A key without an entry starts now.
    Of two with the same start the older one comes first, or the smaller one where keys are `ranked`.
    """

    def __init__(self, *, ranked: bool = False) -> None:
        self._ranked = ranked
        self._heap: list[tuple[float, Any, int, K]] = []
        self._entries: dict[K, tuple[float, Any, int, K]] = {}
        self._waits: set[K] = set()
        self._now = 0.0
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self._waits)

    def add(self, key: K) -> None:
        """A key waits; nothing where it does already."""
        self._waits.add(key)
        if key not in self._entries:
            self._enter(key, self._now)

    def drop(self, key: K) -> None:
        """A key waits no more, though it was not served."""
        self._waits.discard(key)

    def find(self, look: Callable[[K], T | None]) -> T | None:
        """Return what `look` first finds among the keys that wait, the next one first."""
        passed: list[tuple[float, Any, int, K]] = []
        found: T | None = None
        while self._heap and found is None:
            entry = self._heap[0]
            key = entry[3]
            if self._entries.get(key) is not entry:
                heapq.heappop(self._heap)  # it was served before its time
            elif key in self._waits:
                if (found := look(key)) is None:
                    passed.append(heapq.heappop(self._heap))
            elif passed:
                passed.append(heapq.heappop(self._heap))
            else:
                heapq.heappop(self._heap)  # the time comes to a key that waits no more: it is forgotten
                del self._entries[key]
                self._now = max(self._now, entry[0])
        for entry in passed:
            heapq.heappush(self._heap, entry)
        return found

    def charge(self, key: K, cost: float, *, waits: bool) -> None:
        """A key was served: it is next again that much later. `waits`: it goes on waiting."""
        entry = self._entries[key]
        self._now = max(self._now, entry[0])  # what others passed, because it could not be served, gathers no credit
        if self._heap[0] is entry:
            heapq.heappop(self._heap)
        if not waits:
            self._waits.discard(key)
        self._enter(key, self._now + cost)
        if len(self._heap) > 2 * len(self._entries) + 16:
            self._heap = list(self._entries.values())
            heapq.heapify(self._heap)

    def _enter(self, key: K, start: float) -> None:
        self._count += 1
        entry = self._entries[key] = (start, key if self._ranked else 0, self._count, key)
        heapq.heappush(self._heap, entry)


def _class_of(priority: int) -> int:
    return max(step for step in WEIGHTS if step <= priority) if priority > 0 else 0
