"""What one worker process holds, and what is still to be told to Redis about it."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from callboard_workers.redis.scripts import BURY, MARK, PARK, PUT_BACK

if TYPE_CHECKING:
    from collections.abc import Callable

    from callboard_workers.redis.connection import Command
    from callboard_workers.redis.keys import Keys

    Move = Callable[[list[str], list[str | int | bytes]], Command]

DEAD_KEPT = 10_000
"""Dead letters kept in Redis; the oldest give way."""

FORGED_KEPT = 1_000
"""Messages without a signature that are kept apart from them."""


@dataclass(eq=False, slots=True)
class Parcel:
    """One message as it was fetched."""

    tag: int
    key: str
    """The list it came from."""
    envelope: bytes
    marked: bool = False
    """Whether Redis was told that it has begun."""


class Holdings:
    """Parcels in hand, and what is to become of those that are settled. Loop thread only.

    Everything here is repeated until Redis has answered: a settlement survives reconnects, and does nothing to a
    message that was meanwhile given to another worker.
    """

    def __init__(self, keys: Keys, owner: str) -> None:
        self.keys = keys
        self.owner = owner
        self.in_hand: dict[int, Parcel] = {}
        self.held: Counter[str] = Counter()
        """How many are in hand, by the list they came from."""
        self.next_tag = 0
        self.look_again = False
        """Something was put off: the next look tells until when there is time to sleep."""
        self._begun: list[tuple[Parcel, asyncio.Future[None] | None]] = []
        self._acks: list[int | str] = []
        self._moves: list[Command] = []
        self._sent = (0, 0, 0)

    @property
    def unsettled(self) -> bool:
        """Whether Redis does not know everything yet."""
        return bool(self._acks or self._moves or any(parcel.tag in self.in_hand for parcel, _ in self._begun))

    def take(self, key: str, envelope: bytes, tag: int) -> Parcel:
        """Notes a fetched message."""
        parcel = Parcel(tag, key, envelope)
        self.in_hand[tag] = parcel
        self.held[key] += 1
        return parcel

    def begun(self, parcel: Parcel) -> None:
        """It has begun to run; Redis is told with the next round trip, unless it has ended by then.

        If this process dies, that is how others know against which messages the crash counts.
        """
        self._begun.append((parcel, None))

    async def mark(self, parcel: Parcel) -> bool:
        """As `begun`, before it begins: waits until Redis knows; whether the message is still ours then."""
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._begun.append((parcel, told))
        await told
        return parcel.tag in self.in_hand

    def ack(self, parcel: Parcel) -> None:
        """It ran to its end, or is not to run: forget it."""
        if self._let_go(parcel):
            self._acks.append(parcel.tag)
            if parcel.marked:
                self._acks.append(mark_of(parcel.tag))

    def put_back(self, parcel: Parcel, envelope: bytes | None = None) -> None:
        """It did not run, or not to its end: to be served next."""
        self._move(PUT_BACK.call, parcel, [parcel.key], [envelope or parcel.envelope])

    def park(self, parcel: Parcel, delay: float, envelope: bytes | None = None) -> None:
        """It is to run in `delay` seconds."""
        self.look_again = True
        arguments: list[str | int | bytes] = [envelope or parcel.envelope, int(delay * 1000)]
        self._move(PARK.call, parcel, [self.keys.delayed, parcel.key], arguments)

    def bury(self, parcel: Parcel, letter: bytes, *, forged: bool = False) -> None:
        """It may not, or cannot, run; `forged`: it has no signature of our keys."""
        place, kept = (self.keys.forged, FORGED_KEPT) if forged else (self.keys.dead, DEAD_KEPT)
        self._move(BURY.call, parcel, [place], [letter, kept])

    def drop_all(self, owner: str) -> list[Parcel]:
        """Another worker has taken everything over: forget it and go on under a new name; returns what was in hand."""
        lost = list(self.in_hand.values())
        self.in_hand.clear()
        self.held.clear()
        self._settle_marks(len(self._begun))
        self._acks.clear()
        self._moves.clear()
        self.owner = owner
        return lost

    def commands(self) -> list[Command]:
        """What Redis is to be told now; `told()` when it has answered."""
        unacked = self.keys.unacked(self.owner)
        self._sent = (len(self._begun), len(self._acks), len(self._moves))
        commands: list[Command] = []
        if begun := [parcel for parcel, _ in self._begun if parcel.tag in self.in_hand]:
            for parcel in begun:
                parcel.marked = True
            commands.append(MARK.call([unacked, self.keys.taken(self.owner)], [parcel.tag for parcel in begun]))
        if self._acks:
            commands.append(("HDEL", unacked, *self._acks))
        return commands + self._moves

    def told(self) -> None:
        """Redis has answered to everything of the last `commands()`."""
        begun, acks, moves = self._sent
        self._settle_marks(begun)
        del self._acks[:acks], self._moves[:moves]

    def _let_go(self, parcel: Parcel) -> bool:
        """Whether it was in hand until now."""
        if self.in_hand.pop(parcel.tag, None) is None:
            return False
        self.held[parcel.key] -= 1
        return True

    def _settle_marks(self, count: int) -> None:
        for _, told in self._begun[:count]:
            if told is not None and not told.done():
                told.set_result(None)
        del self._begun[:count]

    def _move(self, call: Move, parcel: Parcel, keys: list[str], arguments: list[str | int | bytes]) -> None:
        if self._let_go(parcel):
            self._moves.append(call([self.keys.unacked(self.owner), *keys], [parcel.tag, *arguments]))


def mark_of(tag: int) -> str:
    """The field that says of a message in hand that it has begun."""
    return f"s:{tag}"
