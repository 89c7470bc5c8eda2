"""What must hold after any fault, judged from what was seen: values in, violations out. Pure.

I1 what was accepted is stored; I2 each accepted mail is in exactly one place; I3 the receiver has it once at most;
I4 what is called sent was received; I5 nothing is left running or waiting; I6 what is final stays as it is;
I7 Redis holds nothing but stale doorbells; I8 all of it in bounded time; I9 and in bounded memory.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from uuid import UUID

import msgspec

STATUS_OF = {
    "queued": "queued",
    "running": "sending",
    "done": "sent",
    "dead": "failed",
    "canceled": "canceled",
    "expired": "expired",
    "uncertain": "uncertain",
    "held": "uncertain",
}
FINAL = frozenset({"done", "canceled", "expired"})
IN_DOUBT = frozenset({"uncertain", "held"})
UNFINISHED = frozenset({"queued", "running"})


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A mail in the database: its message's state and epoch, the record's status, and how often it was sent again."""

    state: str
    epoch: int
    intent: bool = False
    status: str
    message_id: str
    resent: int = 0
    error: str = ""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """All that was seen of one run. Durations in seconds, memory in bytes."""

    accepted: Mapping[str, frozenset[UUID]]
    """By Idempotency-Key: the ids that were answered with 202."""
    rows: Mapping[UUID, Row]
    received: Mapping[str, int]
    """By Message-ID: how often the receiving server took it."""
    later: Mapping[UUID, Row]
    """The rows once more, after every doorbell was rung again."""
    doorbells: tuple[UUID | str, ...] = ()
    """What Redis holds: the id of each doorbell, or the text of anything else."""
    unexpected: tuple[str, ...] = ()
    """Answers of the API that are neither 202 nor a refusal that says when to come back; exits that are not 0."""
    drained_in: float = 0.0
    drain_bound: float = 120.0
    peak_memory: int = 0
    memory_bound: int = 1 << 30


class Violation(msgspec.Struct, frozen=True):
    """A broken promise: which, and what was seen."""

    invariant: str
    seen: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.seen}"


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the accepted mails."""

    accepted: int
    sent: int
    failed: int
    uncertain: int
    lost: int
    duplicated: int


def violations(seen: Evidence) -> list[Violation]:
    """Everything that must not be."""
    return [
        *_stored(seen),
        *_placed(seen),
        *_once(seen),
        *_finished(seen),
        *_steady(seen),
        *_doorbells(seen),
        *_bounded(seen),
        *(Violation("answers", text) for text in seen.unexpected),
    ]


def count(seen: Evidence) -> Count:
    """The figures of the verdict."""
    ids = _ids(seen)
    states = Counter(seen.rows[id].state for id in ids if id in seen.rows)
    return Count(
        accepted=len(ids),
        sent=states["done"],
        failed=states["dead"] + states["canceled"] + states["expired"],
        uncertain=sum(states[state] for state in IN_DOUBT),
        lost=sum(1 for id in ids if _is_lost(seen, id)),
        duplicated=sum(1 for row in seen.rows.values() if seen.received.get(row.message_id, 0) > 1 + row.resent),
    )


def _ids(seen: Evidence) -> set[UUID]:
    return {id for ids in seen.accepted.values() for id in ids}


def _is_lost(seen: Evidence, id: UUID) -> bool:
    row = seen.rows.get(id)
    if row is None:
        return True
    return row.state in UNFINISHED or (row.state == "done" and not seen.received.get(row.message_id))


def _stored(seen: Evidence) -> Iterator[Violation]:
    for key, ids in seen.accepted.items():
        if len(ids) != 1:
            yield Violation("I1", f"the Idempotency-Key {key} was answered with {len(ids)} ids")
    for id in _ids(seen) - set(seen.rows):
        yield Violation("I1", f"{id} was accepted and is not stored")
    if len(seen.rows) > len(seen.accepted):
        yield Violation("I1", f"{len(seen.rows)} rows of {len(seen.accepted)} Idempotency-Keys")


def _placed(seen: Evidence) -> Iterator[Violation]:
    for id, row in seen.rows.items():
        taken = seen.received.get(row.message_id, 0)
        if row.state in {"dead", "canceled", "expired"} and taken:
            yield Violation("I2", f"{id} is {row.state} and was received: {row.error}")
        if row.state == "done" and not taken:
            yield Violation("I4", f"{id} is done and was not received")
        if STATUS_OF.get(row.state) != row.status:
            yield Violation("I2", f"{id} is {row.state} in the ledger and {row.status} in its record")


def _once(seen: Evidence) -> Iterator[Violation]:
    known = {row.message_id: row for row in seen.rows.values()}
    for message_id, times in seen.received.items():
        if message_id not in known:
            yield Violation("I1", f"{message_id} was received and is not stored")
        elif times > 1 + known[message_id].resent:
            yield Violation("I3", f"{message_id} was received {times} times, resent {known[message_id].resent}")


def _finished(seen: Evidence) -> Iterator[Violation]:
    for id, row in seen.rows.items():
        if row.state in UNFINISHED:
            yield Violation("I5", f"{id} is still {row.state} (intent {row.intent}, epoch {row.epoch}) {row.error}")


def _steady(seen: Evidence) -> Iterator[Violation]:
    for id, row in seen.rows.items():
        if row.state in FINAL and seen.later.get(id) != row:
            yield Violation("I6", f"{id} was final and changed: {row} -> {seen.later.get(id)}")


def _doorbells(seen: Evidence) -> Iterator[Violation]:
    for item in seen.doorbells:
        if not isinstance(item, UUID):
            yield Violation("I7", f"Redis holds what is no doorbell: {item[:200]}")
        elif (row := seen.later.get(item)) is not None and row.state in UNFINISHED:
            yield Violation("I7", f"the doorbell of {item}, which is {row.state}, was not answered")


def _bounded(seen: Evidence) -> Iterator[Violation]:
    if seen.drained_in > seen.drain_bound:
        yield Violation("I8", f"it took {seen.drained_in:.0f} s of {seen.drain_bound:.0f} s to come to rest")
    if seen.peak_memory > seen.memory_bound:
        yield Violation("I9", f"a process had {seen.peak_memory >> 20} MB of {seen.memory_bound >> 20} MB")
