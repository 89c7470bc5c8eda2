"""Isolation of suspects: messages whose worker died run in shrinking groups, and nothing else in their process.

The first death of a worker counts against nothing that it held: each message becomes a suspect. A process that is given
suspects lets what it runs come to its end, begins nothing else, and runs at most `limit` of them together. If it dies
of that, each group is halved; what settles is a suspect no longer. So one message among 500 is alone after nine deaths,
and only a death that it was alone with counts as a crash. A group has the process to itself for a bounded time: after
that other work begins beside it, and a death says nothing about it again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import structlog

from callboard_workers.errors import FenceUnheard
from callboard_workers.ledger.claims import Claim, Suspect

log = structlog.stdlib.get_logger("workers.isolation")

DRAIN_SECONDS = 5.0
"""How long new work waits for running work to end, each time the process is to become empty."""
WINDOW_SECONDS = 5.0
"""How long a group has the process to itself after its first death; doubled by each further one."""
MAX_WINDOW_SECONDS = 600.0
MAX_PAUSE_SECONDS = 60.0
"""The longest pause between two tries to empty a process that runs something long."""
MAX_TRIES_DOUBLED = 5
TRIES = 3
"""Tries to empty the process before suspects run beside its other work, uncounted; doubled by each further death."""

Note = Callable[[Sequence[Claim], int | None], Awaitable[None]]
"""Stores how many suspects begin together; None: other work begins beside them."""


class Place:
    """The turn of one suspect."""

    __slots__ = ("group", "ordinary", "suspect", "turn")

    def __init__(self, suspect: Suspect) -> None:
        self.suspect = suspect
        self.turn = asyncio.Event()
        self.group: Group | None = None
        self.ordinary = False
        """Whether it runs beside other work by now."""

    async def begin(self, claim: Claim) -> None:
        """Wait until the database has noted that this group begins; FenceUnheard if it does not answer.

        Call it once the suspect is claimed and before its code runs.
        """
        if self.group is None:
            raise RuntimeError("a suspect begins only when it is its turn")
        self.group.arrive(self, claim)
        await self.group.noted.wait()
        if self.group.failed:
            raise FenceUnheard(f"message {claim.id}: the ledger did not note that it begins alone")


class Group:
    """Suspects that run together."""

    def __init__(self, places: Sequence[Place]) -> None:
        self.members = set(places)
        self.claims: dict[Place, Claim] = {}
        self.failed = False
        self.complete = asyncio.Event()
        """Each member is claimed, or has left."""
        self.noted = asyncio.Event()
        self.over = asyncio.Event()
        for place in places:
            place.group = self
            place.turn.set()

    def arrive(self, place: Place, claim: Claim) -> None:
        self.claims[place] = claim
        self._look()

    def leave(self, place: Place) -> None:
        self.members.discard(place)
        self.claims.pop(place, None)
        self._look()

    def _look(self) -> None:
        if len(self.claims) == len(self.members):
            self.complete.set()
        if not self.members:
            self.over.set()


class CrashIsolation:
    """The door of one process: ordinary attempts go in and out, suspects go in when all others are out. Loop only."""

    def __init__(self, note: Note, *, patience: float) -> None:
        """`patience`: seconds for which a note is repeated while the ledger does not answer."""
        self.closed = False
        """Whether ordinary attempts have to wait at the door."""
        self.running = 0
        """Ordinary attempts inside."""
        self._note = note
        self._patience = patience
        self._waiting: list[Place] = []
        self._at_door = 0
        self._opened = asyncio.Event()
        self._empty = asyncio.Event()
        self._failed_tries = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Suspects that wait for their turn."""
        return len(self._waiting)

    async def enter(self) -> None:
        """Go in as an ordinary attempt, and wait while suspects have the process; `leave` when it is over."""
        while self.closed:
            self._at_door += 1
            try:
                await self._opened.wait()
            finally:
                self._at_door -= 1
        self.running += 1

    def leave(self) -> None:
        """Go out."""
        self.running -= 1
        if not self.running:
            self._empty.set()

    @asynccontextmanager
    async def place(self, suspect: Suspect) -> AsyncIterator[Place]:
        """Inside, it is the suspect's turn: claim it, then `begin`."""
        place = Place(suspect)
        self._waiting.append(place)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._serve(), name="isolate suspects")
        try:
            await place.turn.wait()
            yield place
        finally:
            if place.group is None:
                self._waiting.remove(place)
            else:
                place.group.leave(place)
            if place.ordinary:
                self.leave()

    async def stop(self) -> None:
        """Serve no suspect any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _serve(self) -> None:
        try:
            while self._waiting:
                try:
                    rest = await self._turn()
                except Exception:
                    log.exception("isolation_failed")
                    rest = DRAIN_SECONDS
                if self._waiting:
                    await asyncio.sleep(rest)
        finally:
            self._task = None

    async def _turn(self) -> float:
        """One try to run a group; the seconds for which the process then belongs to its other work."""
        began = time.monotonic()
        self.closed = True
        self._opened.clear()
        try:
            alone = await self._is_empty()
            group = self._choose()
            if not group:
                return 0.0
            deaths = max(place.suspect.deaths for place in group)
            self._failed_tries = 0 if alone else self._failed_tries + 1
            if alone or self._failed_tries >= TRIES * 2 ** min(deaths - 1, MAX_TRIES_DOUBLED):
                self._failed_tries = 0
                await self._run(group, alone=alone, deaths=deaths)
            waited = self._at_door > 0
        finally:
            self.closed = False
            self._opened.set()
        if self._failed_tries:
            return min(MAX_PAUSE_SECONDS, DRAIN_SECONDS * 2.0 ** min(self._failed_tries - 1, 10))
        return time.monotonic() - began if waited else 0.0

    async def _is_empty(self) -> bool:
        """Whether everything that runs has come to its end, within DRAIN_SECONDS."""
        if self.running:
            self._empty.clear()
            try:
                async with asyncio.timeout(DRAIN_SECONDS):
                    await self._empty.wait()
            except TimeoutError:
                return False
        return True

    def _choose(self) -> list[Place]:
        """The most suspicious first: those of which the fewest may run together, in the order in which they came."""
        if not self._waiting:
            return []
        limit = max(1, min(place.suspect.limit for place in self._waiting))
        return [place for place in self._waiting if place.suspect.limit <= limit][:limit]

    async def _run(self, places: list[Place], *, alone: bool, deaths: int) -> None:
        group = Group(places)
        self._waiting = [place for place in self._waiting if place.group is None]
        try:
            await group.complete.wait()
            if alone and group.claims:
                together = len(group.claims)
                log.info("suspects_isolated", count=together, deaths=deaths)
                group.failed = not await self._noted(group, together)
            group.noted.set()
            if alone and not group.failed:
                await self._have_the_process(group, deaths)
        finally:
            group.failed = group.failed or not group.noted.is_set()
            group.noted.set()
            for place in group.members:
                place.ordinary = True
            self.running += len(group.members)

    async def _have_the_process(self, group: Group, deaths: int) -> None:
        window = min(MAX_WINDOW_SECONDS, WINDOW_SECONDS * 2.0 ** min(deaths - 1, 10))
        try:
            async with asyncio.timeout(window):
                await group.over.wait()
        except TimeoutError:
            log.info("suspects_run_on", count=len(group.members), seconds=window)
            await self._noted(group, None)

    async def _noted(self, group: Group, together: int | None) -> bool:
        """Store the note, again until the ledger answers; False when it did not for as long as a lease lasts."""
        until = time.monotonic() + self._patience
        while claims := list(group.claims.values()):
            try:
                await self._note(claims, together)
            except Exception as error:
                log.warning("isolation_not_noted", error=repr(error), count=len(claims))
                if time.monotonic() > until:
                    return False
                await asyncio.sleep(min(0.5, self._patience / 10))
            else:
                return True
        return True
