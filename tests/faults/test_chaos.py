"""`callboard chaos`: one small seed of it, and what it refuses to break."""

import random
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.cli.main import callboard
from service.dev.chaos.faults import FAULTS
from service.dev.chaos.report import EXTERNAL
from service.dev.chaos.run import plan, run
from service.dev.stack import Stack


async def test_a_small_seed_loses_nothing_and_sends_nothing_twice(stack: Stack, database: str, tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    names = plan(seed, 120, faults=6)
    print(f"seed {seed}: {names}")  # again: callboard chaos --start SEED
    verdict = await run(stack, database, tmp_path, seed=seed, mails=120, names=names, say=print)
    assert verdict.violations == []
    assert (verdict.count.accepted, verdict.count.lost, verdict.count.duplicated) == (120, 0, 0)
    assert verdict.count.recipients > 200, "one to four of each"
    assert verdict.count.failed, "some were refused"


def test_each_kind_of_fault_comes_before_any_comes_again() -> None:
    names = plan(7, 10_000)
    assert set(names[: len(FAULTS)]) == set(FAULTS)
    assert names == plan(7, 10_000) != plan(8, 10_000)


@pytest.mark.parametrize("name", EXTERNAL)
def test_it_refuses_where_servers_of_somebody_else_are_named(name: str) -> None:
    answer = CliRunner().invoke(callboard, ["chaos", "--mails", "1"], env={name: "postgresql://db.example/live"})
    assert answer.exit_code == 2
    assert name in answer.output
