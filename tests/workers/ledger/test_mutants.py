"""The test of the model notices when a guard is missing: some of the guards; `mutants.py` takes away every one."""

import pytest

from tests.workers.ledger.mutants import MUTANTS, Mutant, killed
from tests.workers.ledger.stories import opened

QUICK = {
    "claim what is not queued",
    "claim what is to be canceled",
    "fence what is to be canceled",
    "fence at the end of a lease",
    "renew what does not run",
    "settle what does not run",
}


@pytest.mark.parametrize("mutant", [each for each in MUTANTS if each.name in QUICK], ids=lambda each: each.name)
def test_a_missing_guard_is_noticed(database: str, mutant: Mutant) -> None:
    with opened(database):
        assert killed(mutant, seed=1) is not None


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda each: each.name)
def test_every_guard_is_where_it_is_taken_away(mutant: Mutant) -> None:
    with mutant.alive():
        module, name = mutant.statement
        assert getattr(module, name)
