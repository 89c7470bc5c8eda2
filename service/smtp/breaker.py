"""A circuit breaker: after some failures in a row, leave a server alone for a while, then send one scout."""

import time
from collections.abc import Callable


class Breaker:
    """Counts failures in a row; pure but for the clock it is given.

    Closed: everybody passes. Open: nobody passes until the cool-down (seconds, doubled with each failed scout up to
    `max_cooldown`) is over. Half-open: one passes, and what becomes of it decides.
    """

    def __init__(
        self,
        *,
        threshold: int = 5,
        cooldown: float = 1.0,
        max_cooldown: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._threshold = threshold
        self._first = cooldown
        self._max = max_cooldown
        self._clock = clock
        self._failures = 0
        self._cooldown = cooldown
        self._until = 0.0
        self._scout = False

    @property
    def open(self) -> bool:
        """True while failures keep callers away (or a scout is out)."""
        return self._failures >= self._threshold

    def wait(self) -> float:
        """Return 0 if the caller may pass (and must then report), else the seconds after which to ask again."""
        if not self.open:
            return 0.0
        left = self._until - self._clock()
        if left > 0:
            return left
        if self._scout:
            return self._first
        self._scout = True
        return 0.0

    def succeeded(self) -> None:
        """Report a success: close."""
        self._failures = 0
        self._cooldown = self._first
        self._scout = False

    def failed(self) -> None:
        """Report a failure: one more towards opening, or open for longer."""
        was_open = self.open
        self._failures += 1
        if not self.open or (was_open and not self._scout):
            return
        if was_open:
            self._cooldown = min(self._cooldown * 2, self._max)
        self._until = self._clock() + self._cooldown
        self._scout = False

    def abandoned(self) -> None:
        """Report that the attempt was given up before it could tell anything."""
        self._scout = False
