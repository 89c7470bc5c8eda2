"""The ledger on a real Postgres does what a plain model of it does, whatever happens in whatever order.

MODEL_SEED repeats a run.
"""

import os
import random
from collections.abc import Iterator

import hypothesis
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.workers.ledger.stories import Machine, opened


@pytest.fixture
def machine(database: str) -> Iterator[type[Machine]]:
    """The machine over a fresh database."""
    with opened(database):
        yield Machine


def test_the_ledger_is_its_model(machine: type[Machine]) -> None:
    number = int(os.environ.get("MODEL_SEED") or random.randrange(1_000_000))
    print(f"to repeat this run: MODEL_SEED={number}")
    hypothesis.seed(number)(machine)
    examples = int(os.environ.get("MODEL_EXAMPLES", "60"))
    health = list(HealthCheck)
    chosen = settings(
        max_examples=examples, stateful_step_count=40, deadline=None, database=None, suppress_health_check=health
    )
    run_state_machine_as_test(machine, settings=chosen)
    print(dict(sorted(machine.steps.items())))
    assert sum(machine.steps.values()) >= examples * 10
    for step in ("claim", "claim race", "fence", "settle queued", "settle None", "sweep reclaimed", "cancel requested"):
        assert machine.steps.get(step), f"{step} never happened: the test proves little"
