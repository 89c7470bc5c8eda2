"""What must hold after any fault, judged from what was seen: values in, violations out. Pure.

Emails have several recipients, so what is counted are pairs of an email and a recipient. I1 what was accepted is
stored; I2 each pair is in exactly one place; I3 the receiver has each at most once; I4 what is called sent was
received; I5 nothing is left running or waiting; I6 what is final stays as it is; I7 Redis holds nothing but stale
doorbells; I8 all of it in bounded time; I9 and in bounded memory; I10 no pair is silently missing: a
deferred one is retried by one email, and what was given up was refused by the mail server.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Literal
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

Fate = Literal["sent", "failed", "uncertain", "lost"]
Pair = tuple[str, str]
"""A Message-ID and the address of a recipient."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """An email in the database: its message's state and epoch, the record's status, and how often it was sent again.

    `recipients` are those that it was stored for; `replies` says which of them it serves no more: `refused` or
    `deferred` by the server beside others, or `suppressed`. A deferred one is served by the email that `follows` this
    one. `code` is the server's last reply.
    """

    state: str
    epoch: int
    intent: bool = False
    status: str
    message_id: str
    resent: int = 0
    error: str = ""
    recipients: tuple[str, ...] = ()
    replies: Mapping[str, str] = {}
    follows: UUID | None = None
    code: int | None = None


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """All that was seen of one run. Durations in seconds, memory in bytes."""

    accepted: Mapping[str, frozenset[UUID]]
    """By Idempotency-Key: the ids that were answered with 202."""
    recipients: Mapping[str, tuple[str, ...]]
    """By Idempotency-Key: the addresses that were asked for."""
    rows: Mapping[UUID, Row]
    received: Mapping[Pair, int]
    """How often the receiving server took an email for a recipient."""
    refused: frozenset[str] = frozenset()
    """The recipients that the receiving server refused for good."""
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
    """What became of the accepted emails, by their recipients."""

    accepted: int
    """Emails."""
    recipients: int
    """Pairs of an email and a recipient; the figures below are of these."""
    sent: int
    failed: int
    uncertain: int
    lost: int
    duplicated: int


class Outcome(msgspec.Struct, frozen=True):
    """What became of a recipient of an email, and what is wrong about that."""

    fate: Fate
    wrong: Violation | None


def violations(seen: Evidence) -> list[Violation]:
    """Everything that must not be."""
    return [
        *_stored(seen),
        *_placed(seen),
        *(outcome.wrong for outcome in _outcomes(seen).values() if outcome.wrong is not None),
        *_once(seen),
        *_finished(seen),
        *_steady(seen),
        *_doorbells(seen),
        *_bounded(seen),
        *(Violation("answers", text) for text in seen.unexpected),
    ]


def count(seen: Evidence) -> Count:
    """The figures of the verdict."""
    outcomes = _outcomes(seen)
    fates = Counter(outcome.fate for outcome in outcomes.values())
    return Count(
        accepted=len({id for ids in seen.accepted.values() for id in ids}),
        recipients=len(outcomes),
        sent=fates["sent"],
        failed=fates["failed"],
        uncertain=fates["uncertain"],
        lost=fates["lost"],
        duplicated=len(list(_once(seen))),
    )


def _outcomes(seen: Evidence) -> dict[tuple[UUID, str], Outcome]:
    """What became of each recipient of each accepted email."""
    following: dict[UUID, list[UUID]] = {}
    for id, row in seen.rows.items():
        if row.follows is not None:
            following.setdefault(row.follows, []).append(id)
    return {
        (email_id, address): _outcome(seen, following, email_id, address)
        for key, email_ids in seen.accepted.items()
        for email_id in email_ids
        for address in seen.recipients[key]
    }


def _outcome(seen: Evidence, following: Mapping[UUID, list[UUID]], email_id: UUID, address: str) -> Outcome:
    """Go from the email to the one that follows it for as long as the recipient is deferred."""
    serving = email_id
    while (row := seen.rows.get(serving)) is not None and row.replies.get(address) == "deferred":
        retried = [each for each in following.get(serving, ()) if address in seen.rows[each].recipients]
        if len(retried) != 1:
            wrong = f"{email_id} to {address} was deferred and is retried by {len(retried)} emails"
            return Outcome("lost", Violation("I10", wrong))
        serving = retried[0]
    if row is None:
        return Outcome("lost", Violation("I1", f"{email_id} was accepted and is not stored"))
    return _judged(seen, f"{email_id} to {address}", address, row)


def _judged(seen: Evidence, name: str, address: str, row: Row) -> Outcome:  # noqa: PLR0911 (one answer per fate)
    """The fate of a recipient by the row that serves it last."""
    taken = seen.received.get((row.message_id, address), 0)
    if address not in row.recipients:
        return Outcome("lost", Violation("I1", f"{name} is not stored for this recipient"))
    if (reply := row.replies.get(address)) is None:
        if row.state in UNFINISHED:
            return Outcome("lost", None)  # I5 says so, once for each email
        if row.state in IN_DOUBT:
            return Outcome("uncertain", None)
        if row.state == "done" and taken:
            return Outcome("sent", None)
        if row.state == "done":
            return Outcome("lost", Violation("I4", f"{name} is done and was not received"))
    if taken:
        return Outcome("failed", Violation("I2", f"{name} is {row.state} and was received: {row.error}"))
    given_up = reply is not None or row.state == "dead"
    if given_up and address not in seen.refused and (reply is not None or not 500 <= (row.code or 0) <= 599):
        return Outcome("lost", Violation("I10", f"{name} was given up, and no server refused it: {row.error}"))
    return Outcome("failed", None)


def _stored(seen: Evidence) -> Iterator[Violation]:
    for key, ids in seen.accepted.items():
        if len(ids) != 1:
            yield Violation("I1", f"the Idempotency-Key {key} was answered with {len(ids)} ids")
    first = sum(1 for row in seen.rows.values() if row.follows is None)
    if first > len(seen.accepted):
        yield Violation("I1", f"{first} rows of {len(seen.accepted)} Idempotency-Keys")
    stored = {(row.message_id, address) for row in seen.rows.values() for address in row.recipients}
    for message_id, address in seen.received.keys() - stored:
        yield Violation("I1", f"{message_id} to {address} was received and is not stored")


def _placed(seen: Evidence) -> Iterator[Violation]:
    for id, row in seen.rows.items():
        served = set(row.recipients) - row.replies.keys()
        # Refused in an attempt whose worker died before it could say so, a recipient is suppressed by the next.
        expected = STATUS_OF.get(row.state) if served or row.state != "done" else "suppressed"
        if row.status != expected:
            yield Violation("I2", f"{id} is {row.state} in the ledger and {row.status} in its record")
        if row.follows is not None and any(
            (first := seen.rows.get(row.follows)) is None or first.replies.get(each) != "deferred"
            for each in row.recipients
        ):
            yield Violation("I2", f"{id} serves recipients that {row.follows} serves as well")


def _once(seen: Evidence) -> Iterator[Violation]:
    resent: Counter[Pair] = Counter()
    for row in seen.rows.values():
        for address in row.recipients:
            resent[row.message_id, address] += row.resent
    for (message_id, address), times in seen.received.items():
        if times > 1 + (again := resent[message_id, address]):
            yield Violation("I3", f"{message_id} to {address} was received {times} times, resent {again}")


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
