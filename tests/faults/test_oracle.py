"""The oracle sees each kind of damage: a run that was tampered with is never called well."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
import pytest

from service.dev.chaos.oracle import Evidence, Row, count, violations

A, B, C, D, E = (UUID(int=number) for number in range(1, 6))


def row(state: str, status: str, name: str, *recipients: str, **more: Any) -> Row:
    return Row(state=state, epoch=1, status=status, message_id=name, recipients=recipients or ("x",), **more)


def well() -> Evidence:
    """Four emails. The last has three recipients: one has it, one was deferred and has it too, one was refused."""
    rows = {
        A: row("done", "sent", "<a>"),
        B: row("dead", "failed", "<b>", code=554),
        C: row("uncertain", "uncertain", "<c>"),
        D: row("done", "sent", "<d>", "x", "later", "never", replies={"later": "deferred", "never": "refused"}),
        E: row("done", "sent", "<d>", "later", follows=D),
    }
    return Evidence(
        accepted={str(number): frozenset({id}) for number, id in enumerate((A, B, C, D), 1)},
        recipients={"1": ("x",), "2": ("x",), "3": ("x",), "4": ("x", "later", "never")},
        rows=rows,
        received={("<a>", "x"): 1, ("<c>", "x"): 1, ("<d>", "x"): 1, ("<d>", "later"): 1},
        refused=frozenset({"never"}),
        later=dict(rows),
        doorbells=(A,),
    )


def test_a_run_in_which_all_is_well_violates_nothing() -> None:
    assert violations(well()) == []
    got = count(well())
    assert (got.accepted, got.recipients) == (4, 6)
    assert (got.sent, got.failed, got.uncertain, got.lost, got.duplicated) == (3, 2, 1, 0, 0)


def test_a_recipient_that_was_refused_and_is_suppressed_since_is_no_violation() -> None:
    rows = ROWS | {B: row("done", "suppressed", "<b>", "never", replies={"never": "suppressed"})}
    recipients = well().recipients | {"2": ("never",)}
    seen = msgspec.structs.replace(well(), rows=rows, later=rows, recipients=recipients)
    assert violations(seen) == []
    assert count(seen).failed == 2
    assert violations(msgspec.structs.replace(seen, refused=frozenset()))


@dataclass
class Damage:
    invariant: str
    change: dict[str, Any]


ROWS, RECEIVED, ACCEPTED = well().rows, well().received, well().accepted
DAMAGES = {
    "an email that was accepted is not stored": Damage(
        "I1", {"rows": {A: ROWS[A], B: ROWS[B], D: ROWS[D], E: ROWS[E]}}
    ),
    "a key was answered with two ids": Damage("I1", {"accepted": ACCEPTED | {"1": frozenset({A, B})}}),
    "a key made two rows": Damage("I1", {"accepted": {"1": frozenset({A}), "2": frozenset({B}), "3": frozenset({C})}}),
    "the receiver has an email that is not stored": Damage("I1", {"received": {**RECEIVED, ("<x>", "x"): 1}}),
    "the receiver has an email for another recipient": Damage("I1", {"received": {**RECEIVED, ("<a>", "y"): 1}}),
    "a recipient is not stored": Damage("I1", {"rows": ROWS | {A: row("done", "sent", "<a>", "y")}}),
    "a failed email was received": Damage("I2", {"received": {**RECEIVED, ("<b>", "x"): 1}}),
    "a refused recipient received it": Damage("I2", {"received": {**RECEIVED, ("<d>", "never"): 1}}),
    "ledger and record disagree": Damage("I2", {"rows": ROWS | {A: row("done", "sending", "<a>")}}),
    "two emails serve one recipient": Damage("I2", {"rows": ROWS | {E: row("done", "sent", "<d>", "x", follows=D)}}),
    "an email was received twice": Damage("I3", {"received": {**RECEIVED, ("<a>", "x"): 2}}),
    "a deferred recipient received it twice": Damage("I3", {"received": {**RECEIVED, ("<d>", "later"): 2}}),
    "an uncertain email was received twice": Damage("I3", {"received": {**RECEIVED, ("<c>", "x"): 2}}),
    "a sent email was not received": Damage("I4", {"received": {}}),
    "one of its recipients has not received it": Damage("I4", {"received": {**RECEIVED, ("<d>", "x"): 0}}),
    "an email still waits": Damage("I5", {"rows": ROWS | {A: row("queued", "queued", "<a>")}}),
    "an email still runs": Damage("I5", {"rows": ROWS | {A: row("running", "sending", "<a>", intent=True)}}),
    "a final row changed": Damage("I6", {"later": ROWS | {A: row("queued", "queued", "<a>")}}),
    "a final row went": Damage("I6", {"later": {B: ROWS[B], C: ROWS[C]}}),
    "Redis holds the content of an email": Damage("I7", {"doorbells": ('{"body": "…"}',)}),
    "Redis holds a doorbell that nobody answers": Damage(
        "I7", {"doorbells": (B,), "later": ROWS | {B: row("queued", "queued", "<b>")}}
    ),
    "it does not come to rest": Damage("I8", {"drained_in": 500.0}),
    "memory grows": Damage("I9", {"peak_memory": 1 << 40}),
    "a deferred recipient is forgotten": Damage("I10", {"rows": {id: each for id, each in ROWS.items() if id != E}}),
    "an email was given up without a refusal": Damage("I10", {"rows": ROWS | {B: row("dead", "failed", "<b>")}}),
    "a recipient is called refused that was not": Damage("I10", {"refused": frozenset()}),
    "the API answered 500": Damage("answers", {"unexpected": ("500 for 1",)}),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_each_damage_is_seen(damage: Damage) -> None:
    found = violations(msgspec.structs.replace(well(), **damage.change))
    assert damage.invariant in {violation.invariant for violation in found}


def test_a_resend_that_was_recorded_is_no_duplicate() -> None:
    rows = ROWS | {A: row("done", "sent", "<a>", resent=1)}
    seen = msgspec.structs.replace(well(), rows=rows, later=rows, received={**RECEIVED, ("<a>", "x"): 2})
    assert violations(seen) == []
    assert count(seen).duplicated == 0
    assert violations(msgspec.structs.replace(seen, received={**RECEIVED, ("<a>", "x"): 3}))


def test_lost_counts_the_recipients_that_miss_an_email_and_those_of_one_given_up_without_a_refusal() -> None:
    rows = ROWS | {A: row("queued", "queued", "<a>"), B: row("dead", "failed", "<b>", error="Quarantined")}
    seen = msgspec.structs.replace(well(), rows={id: each for id, each in rows.items() if id != E}, received={})
    got = count(seen)
    assert (got.recipients, got.lost, got.failed, got.uncertain) == (6, 4, 1, 1)
