"""Fetching: one script takes as many messages as there is room for, one round trip settles as many as are done."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import structlog
from redis.exceptions import NoScriptError, ResponseError

from callboard_workers.errors import BrokerUnavailable
from callboard_workers.redis.connection import Command, Link
from callboard_workers.redis.in_flight import Holdings, Parcel
from callboard_workers.redis.list_waiter import Peek
from callboard_workers.redis.scripts import ALL, FETCH, LEAVE

if TYPE_CHECKING:
    from collections.abc import Callable

    from callboard_workers.redis.keys import Keys

log = structlog.get_logger(__name__)

MAX_FETCH = 100
"""Messages in one round trip."""
POLL = 1.0
"""Seconds after which an idle worker looks anyway."""
BOTTOM_EVERY = 8
"""Every n-th fetch starts from the lowest priority, so that it is never starved."""
SORT = 2_000
"""Doorbells that a fetch from a backlog moves to lists of their tenants: those that wait behind one tenant's flood are
found within as many fetches as it has thousands."""
RESERVED = 16
"""One slot in so many is for critical messages alone, in a worker that has at least LARGE of them."""
LARGE = 64
SHARED = 4
"""Where such a worker serves several queues, one slot in so many is none queue's while the others have none."""
REPLY = 10.0
"""Seconds a round trip may take."""


class Intake:
    """One worker process's fetching and settling; a coroutine on the loop thread.

    `room()` says how many messages may be in hand; `handle(parcel)` is called for each one that arrives and settles
    it sooner or later through `holdings`, then calls `wake()`.
    """

    def __init__(
        self,
        url: str,
        keys: Keys,
        owner: str,
        *,
        lease: float,
        room: Callable[[], int],
        handle: Callable[[Parcel], None],
        lost: Callable[[list[Parcel]], None],
    ) -> None:
        self.keys = keys
        self.holdings = Holdings(keys, owner)
        self.fetching = True
        self.up = False
        """Whether the last round trip was answered."""
        self.lease = lease
        self.clock_offset = 0.0
        """Seconds by which Redis' clock is ahead of ours: two machines agree on what is due by asking one clock."""
        self.queues: list[str] = []
        self._room = room
        self._handle = handle
        self._lost = lost
        self._link = Link(url)
        self._peek = Peek(url, self.wake)
        self._bell = asyncio.Event()
        self._turn = 0
        self._generation = 0
        self._doubt = False
        self._hungry = True
        self._held_back: list[str] = []
        """Lists that may have more, for which the last fetch had no room."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to fetch, on the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="intake")

    def wake(self) -> None:
        """Something was settled, or has arrived: do not sleep over it."""
        self._hungry = True
        self._bell.set()

    def settled(self) -> None:
        """Something was settled."""
        self._bell.set()

    def add_queue(self, queue: str) -> None:
        """Fetches from one more queue."""
        if queue not in self.queues:
            self.queues = [*self.queues, queue]
            self._peek.watch(self.keys.lists(queue))
            self.wake()

    def cancel_queue(self, queue: str) -> None:
        """Fetches from it no more; what is in hand stays."""
        self.queues = [name for name in self.queues if name != queue]
        self._peek.forget(self.keys.lists(queue))

    def stop_fetching(self) -> None:
        """Settles on, but takes nothing new."""
        self.fetching = False
        self._peek.close()
        self.settled()

    async def stop(self, timeout: float) -> None:
        """Tells Redis what is settled, signs off and closes the connections, within `timeout` seconds."""
        self.stop_fetching()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        try:
            async with asyncio.timeout(timeout):
                while self.holdings.unsettled or self._doubt:
                    await self._round_trip(0)
                leave = LEAVE.call([self.keys.owners, self.keys.unacked(self.holdings.owner)], [self.holdings.owner])
                await self._link.call([leave], REPLY)
        except (TimeoutError, BrokerUnavailable) as error:
            log.warning("sign_off_failed", error=str(error), hint="its messages run again when the lease is over")
        await self._link.close()

    async def _run(self) -> None:
        pause = 0.1
        while True:
            want = self._want()
            if not self.holdings.unsettled and not want:
                await self._sleep(POLL)
                continue
            try:
                found, wait = await self._round_trip(want)
            except BrokerUnavailable as error:
                self._note_down(error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 2.0)
                continue
            pause = 0.1
            if want and found < want and not self.holdings.unsettled:
                self._hungry = False
                rooms = self._rooms()
                self._held_back = [key for key, room in rooms.items() if room <= 0]
                self._peek.arm(key for key, room in rooms.items() if room > 0)
                await self._sleep(wait)

    def _want(self) -> int:
        if not self.fetching or not self.queues:
            return 0
        free = min(MAX_FETCH, self._room() - len(self.holdings.in_hand))
        if free <= 0 or self._hungry or self.holdings.look_again:
            return max(0, free)
        if self._held_back:
            rooms = self._rooms()
            return free if any(rooms.get(key, 0) > 0 for key in self._held_back) else 0
        return 0

    def _limits(self) -> tuple[int, dict[str, int]]:
        """How many more may be in hand that are not critical: of all queues, and of each."""
        held, limit = self.holdings.held, self._room()
        taken = {queue: sum(held[key] for key in self.keys.lists(queue)[1:]) for queue in self.queues}
        critical = sum(held[self.keys.lists(queue)[0]] for queue in self.queues)
        others = len(self.holdings.in_hand) - critical
        if limit < LARGE:
            return limit - others, {queue: limit - count for queue, count in taken.items()}
        most = limit - limit // SHARED if len(self.queues) > 1 else limit
        return limit - limit // RESERVED - others, {queue: most - count for queue, count in taken.items()}

    def _rooms(self) -> dict[str, int]:
        """How many more of each list may be in hand."""
        free = self._room() - len(self.holdings.in_hand)
        ordinary, queues = self._limits()
        return {
            key: min(free, ordinary, queues[queue]) if place else free
            for queue in self.queues
            for place, key in enumerate(self.keys.lists(queue))
        }

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._bell.wait()
        except TimeoutError:
            self._hungry = True
        self._bell.clear()

    async def _round_trip(self, want: int) -> tuple[int, float]:
        """Settles and fetches; returns how many arrived and the seconds until it is worth looking again."""
        if self._doubt:
            await self._find_unheard()
        commands: list[Command] = self.holdings.commands()
        lists = self._lists() if want else []
        if want:
            commands.append(self._fetch(lists, want))
            self.holdings.look_again = False
            self._doubt = True  # until the answer is here, messages may be ours without our knowing
        replies = await self._link.call(commands, REPLY)
        if await self._load_scripts(replies):
            return await self._round_trip(want)
        if refusal := next((reply for reply in replies if isinstance(reply, ResponseError)), None):
            raise BrokerUnavailable(f"the broker refused: {refusal}")
        self._note_up()
        self.holdings.told()
        self._doubt = False
        if not want:
            return 0, POLL
        answer = replies[-1]
        if answer[0] == -2:
            self._start_over()
            return want, 0.0
        self.clock_offset = answer[1] / 1000 - time.time()
        self._receive(answer, lists)
        return (len(answer) - 2) // 2, POLL if answer[0] < 0 else min(POLL, answer[0] / 1000)

    def _lists(self) -> list[tuple[str, int]]:
        """The lists in the order to look, each with the number of its queue, negative where it is critical: by
        priority, the queues taking turns; now and then from the bottom."""
        self._turn += 1
        shift = self._turn % len(self.queues)
        queues = [*enumerate(self.queues, 1)]
        steps = list(
            zip(
                *(
                    [(key, number if place else -number) for place, key in enumerate(self.keys.lists(queue))]
                    for number, queue in queues[shift:] + queues[:shift]
                ),
                strict=True,
            )
        )
        if self._turn % BOTTOM_EVERY == 0:
            steps.reverse()
        return [each for step in steps for each in step]

    def _fetch(self, lists: list[tuple[str, int]], want: int) -> Command:
        holdings, keys = self.holdings, self.keys
        owner = holdings.owner
        ordinary, queues = self._limits()
        names = [keys.unacked(owner), keys.owners, keys.taken(owner), keys.delayed, keys.sorted]
        return FETCH.call(
            [*names, *(key for key, _ in lists)],
            [
                *(owner, int(self.lease * 1000), want, holdings.next_tag, ordinary, keys.turns, SORT),
                *(number for _, number in lists),
                *(queues[queue] for queue in self.queues),
            ],
        )

    def _receive(self, answer: list[Any], lists: list[tuple[str, int]]) -> None:
        holdings = self.holdings
        for i in range(2, len(answer), 2):
            parcel = holdings.take(lists[answer[i]][0], answer[i + 1], holdings.next_tag)
            holdings.next_tag += 1
            self._handle(parcel)

    async def _find_unheard(self) -> None:
        """After a lost answer: what Redis gave us without our hearing of it."""
        unacked = self.keys.unacked(self.holdings.owner)
        [tags] = await self._link.call([("HKEYS", unacked)], REPLY)
        numbers = [int(tag) for tag in tags if tag.isdigit()] if isinstance(tags, list) else []
        unheard = [tag for tag in numbers if tag >= self.holdings.next_tag]
        if unheard:
            [values] = await self._link.call([("HMGET", unacked, *unheard)], REPLY)
            self.holdings.next_tag = max(unheard) + 1
            for tag, value in zip(unheard, values, strict=True):
                if value is not None:
                    key, _, envelope = value.partition(b"\n")
                    parcel = self.holdings.take(key.decode(), envelope, tag)
                    if self.fetching:
                        self._handle(parcel)
                    else:
                        self.holdings.put_back(parcel)
        self._doubt = False

    async def _load_scripts(self, replies: list[Any]) -> bool:
        if not any(isinstance(reply, NoScriptError) for reply in replies):
            return False
        await self._link.call([("SCRIPT", "LOAD", script.text) for script in ALL], REPLY)
        return True

    def _start_over(self) -> None:
        """We were taken for dead: what we held runs elsewhere now."""
        self._generation += 1
        old = self.holdings.owner
        lost = self.holdings.drop_all(f"{old.rpartition('~')[0] or old}~{self._generation}")
        log.error("leases_lost", owner=old, messages=len(lost), hint="the process stood still longer than its lease")
        self._lost(lost)

    def _note_up(self) -> None:
        if not self.up:
            log.info("broker_connected", owner=self.holdings.owner)
        self.up = True

    def _note_down(self, error: BrokerUnavailable) -> None:
        if self.up:
            log.warning("broker_lost", error=str(error), running=len(self.holdings.in_hand))
        self.up = False
