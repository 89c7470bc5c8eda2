"""A circuit breaker: after a failure, stop trying for a while, then let one probe through."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Circuit(StrEnum):
    """Closed lets everything through, open nothing, half-open waits for the answer of one probe."""

    closed = "closed"
    open = "open"
    half_open = "half_open"


@dataclass
class Breaker:
    """Decides whether a call to something that may be down is worth its deadline.

    Times are seconds of one monotonic clock that the caller reads. The pause doubles with every failed probe,
    from `pause_min` to `pause_max`.
    """

    pause_min: float = 0.5
    pause_max: float = 10.0
    state: Circuit = field(default=Circuit.closed, init=False)
    retry_at: float = field(default=0.0, init=False)
    _pause: float = field(default=0.0, init=False)

    def allows(self, now: float) -> bool:
        """Whether a call may be made; asking when the pause is over turns that call into the probe."""
        if self.state is Circuit.open and now >= self.retry_at:
            self.state = Circuit.half_open
            return True
        return self.state is Circuit.closed

    def forgo(self) -> None:
        """The probe was not made after all; the next call may be it."""
        if self.state is Circuit.half_open:
            self.state = Circuit.open

    def succeed(self) -> None:
        """A call was answered."""
        self.state = Circuit.closed
        self._pause = 0.0

    def fail(self, now: float) -> None:
        """A call was refused, or not answered in time."""
        self._pause = min(self._pause * 2, self.pause_max) if self._pause else self.pause_min
        self.state = Circuit.open
        self.retry_at = now + self._pause
