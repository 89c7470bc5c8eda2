"""Where a message stands, and how it moves."""

from __future__ import annotations

import enum


class State(enum.StrEnum):
    """Where a message stands. "Scheduled" and "retrying" are QUEUED with a `due_at` to come."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    DEAD = "dead"
    CANCELED = "canceled"
    EXPIRED = "expired"
    UNCERTAIN = "uncertain"
    HELD = "held"


TERMINAL = frozenset({State.DONE, State.CANCELED, State.EXPIRED})

MOVES: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RUNNING, State.CANCELED, State.EXPIRED, State.DEAD}),
    State.RUNNING: frozenset(
        {State.QUEUED, State.DONE, State.DEAD, State.CANCELED, State.EXPIRED, State.UNCERTAIN},
    ),
    State.UNCERTAIN: frozenset({State.DONE, State.QUEUED, State.HELD, State.DEAD}),
    State.HELD: frozenset({State.QUEUED, State.DONE, State.DEAD}),
    State.DEAD: frozenset({State.QUEUED, State.DONE}),
    State.DONE: frozenset(),
    State.CANCELED: frozenset(),
    State.EXPIRED: frozenset(),
}
"""Every transition there is; the database refuses all others."""
