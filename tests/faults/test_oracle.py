"""The oracle sees each kind of damage: a run that was tampered with is never called well."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
import pytest

from service.dev.chaos.oracle import Evidence, Row, count, violations

A, B, C = (UUID(int=number) for number in (1, 2, 3))


def row(state: str, status: str, name: str, **more: Any) -> Row:
    return Row(state=state, epoch=1, status=status, message_id=name, **more)


def well() -> Evidence:
    rows = {A: row("done", "sent", "<a>"), B: row("dead", "failed", "<b>"), C: row("uncertain", "uncertain", "<c>")}
    accepted = {"1": frozenset({A}), "2": frozenset({B}), "3": frozenset({C})}
    return Evidence(accepted=accepted, rows=rows, received={"<a>": 1, "<c>": 1}, later=dict(rows), doorbells=(A,))


def test_a_run_in_which_all_is_well_violates_nothing() -> None:
    assert violations(well()) == []
    got = count(well())
    assert (got.accepted, got.sent, got.failed, got.uncertain, got.lost, got.duplicated) == (3, 1, 1, 1, 0, 0)


@dataclass
class Damage:
    invariant: str
    change: dict[str, Any]


ROWS = well().rows
DAMAGES = {
    "a mail that was accepted is not stored": Damage("I1", {"rows": {A: ROWS[A], B: ROWS[B]}}),
    "a key was answered with two ids": Damage("I1", {"accepted": {"1": frozenset({A, B}), "3": frozenset({C})}}),
    "a key made two rows": Damage("I1", {"accepted": {"1": frozenset({A}), "2": frozenset({B})}}),
    "the receiver has a mail nobody stored": Damage("I1", {"received": {"<a>": 1, "<x>": 1}}),
    "a failed mail was received": Damage("I2", {"received": {"<a>": 1, "<b>": 1}}),
    "ledger and record disagree": Damage("I2", {"rows": ROWS | {A: row("done", "sending", "<a>")}}),
    "a mail was received twice": Damage("I3", {"received": {"<a>": 2}}),
    "an uncertain mail was received twice": Damage("I3", {"received": {"<a>": 1, "<c>": 2}}),
    "a sent mail was not received": Damage("I4", {"received": {}}),
    "a mail still waits": Damage("I5", {"rows": ROWS | {A: row("queued", "queued", "<a>")}}),
    "a mail still runs": Damage("I5", {"rows": ROWS | {A: row("running", "sending", "<a>", intent=True)}}),
    "a final row changed": Damage("I6", {"later": ROWS | {A: row("queued", "queued", "<a>")}}),
    "a final row went": Damage("I6", {"later": {B: ROWS[B], C: ROWS[C]}}),
    "Redis holds the content of a mail": Damage("I7", {"doorbells": ('{"body": "…"}',)}),
    "Redis holds a doorbell that nobody answers": Damage(
        "I7", {"doorbells": (B,), "later": ROWS | {B: row("queued", "queued", "<b>")}}
    ),
    "it does not come to rest": Damage("I8", {"drained_in": 500.0}),
    "memory grows": Damage("I9", {"peak_memory": 1 << 40}),
    "the API answered 500": Damage("answers", {"unexpected": ("500 for 1",)}),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_each_damage_is_seen(damage: Damage) -> None:
    found = violations(msgspec.structs.replace(well(), **damage.change))
    assert damage.invariant in {violation.invariant for violation in found}


def test_a_resend_that_was_recorded_is_no_duplicate() -> None:
    rows = ROWS | {A: row("done", "sent", "<a>", resent=1)}
    seen = msgspec.structs.replace(well(), rows=rows, later=rows, received={"<a>": 2})
    assert violations(seen) == []
    assert count(seen).duplicated == 0
    assert violations(msgspec.structs.replace(seen, received={"<a>": 3}))


def test_lost_counts_what_is_missing_waiting_or_called_sent_without_having_been() -> None:
    seen = msgspec.structs.replace(well(), rows={B: row("queued", "queued", "<b>"), A: ROWS[A]}, received={})
    assert count(seen).lost == 3
