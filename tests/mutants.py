"""Breaks the product, one promise at a time, and sees whether the tests notice: all mutants by one command.

    python -m tests.mutants                         # all of them: most of an hour, for a night
    python -m tests.mutants --seconds 45 --each 60  # a sample, in an order that the seed decides: for every change
    python -m tests.mutants fence                   # those whose name has this part

Two kinds: mutants of the product, each in a copy of it, with the test that must fail (`tests.faults.mutants`); and
mutants of the ledger's statements, for the test of its model (`tests.workers.ledger.mutants`). No mutant begins after
`--seconds`; one that has begun is finished, but a test of the product is cut off after `--each` seconds. Ends with 1
where a mutant is not noticed, and, unless `--seconds` asks for a sample, where a test was cut off.
"""

import argparse
import asyncio
import math
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from service.dev.databases import Databases
from service.dev.stack import throwaway_stack
from tests.faults import mutants as product
from tests.workers.ledger import mutants as ledger


class Trial(NamedTuple):
    """One mutant: its name, and a function that tells whether a test notices it."""

    name: str
    is_noticed: Callable[[], bool]


@contextmanager
def trials(words: Sequence[str], most: float) -> Iterator[list[Trial]]:
    """Every mutant whose name has one of `words` (none: every mutant), with the servers that the ledger's need."""
    logs = Path(tempfile.mkdtemp(prefix="callboard-mutants-"))
    with throwaway_stack() as stack:
        databases = Databases(stack.postgres.url("postgres"))
        databases.create("mutants")
        url = stack.postgres.url("mutants")
        asyncio.run(ledger._migrate(url))
        found = [
            *(Trial(f"ledger: {each.name}", partial(_of_ledger, url, each)) for each in ledger.MUTANTS),
            *(Trial(f"product: {each.name}", partial(_of_product, logs, most, each)) for each in product.MUTANTS),
        ]
        try:
            yield [trial for trial in found if not words or any(word in trial.name for word in words)]
        finally:
            databases.close()


def _of_ledger(url: str, mutant: ledger.Mutant) -> bool:
    return not ledger.check(url, [mutant], lambda _: None)


def _of_product(logs: Path, seconds: float, mutant: product.Mutant) -> bool:
    log = logs / f"{abs(hash(mutant.name))}.log"
    with product.copied(mutant) as place:
        return not product.passes(place, mutant.test, log, seconds)


class Findings(NamedTuple):
    """The names of the mutants that no test noticed, and of those whose test was cut off."""

    missed: list[str]
    cut_off: list[str]


def run(chosen: Sequence[Trial], seconds: float) -> Findings:
    """Try mutants until `seconds` are over, and print each."""
    began, tried = time.monotonic(), 0
    found = Findings([], [])
    for trial in chosen:
        if time.monotonic() - began >= seconds:
            break
        started, tried = time.monotonic(), tried + 1
        try:
            word = "noticed" if trial.is_noticed() else "NOT NOTICED"
        except TimeoutError:
            word = "cut off"
        found.missed.extend([trial.name] if word == "NOT NOTICED" else [])
        found.cut_off.extend([trial.name] if word == "cut off" else [])
        print(f"{word:11} {time.monotonic() - started:5.0f} s  {trial.name}", flush=True)
    noticed = tried - len(found.missed) - len(found.cut_off)
    more = f"{len(found.cut_off)} were cut off, {len(chosen) - tried} were not tried"
    print(f"{noticed} of {tried} mutants are noticed; {more}")
    return found


def main(arguments: Sequence[str]) -> int:
    """Parse the command line and run; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("words", nargs="*", help="parts of names; all mutants by default")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no mutant after this time")
    parser.add_argument("--each", type=float, default=600.0, help="cut a test of the product off after this time")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="decides the order")
    given = parser.parse_args(arguments)
    with trials(given.words, given.each) as chosen:
        random.Random(given.seed).shuffle(chosen)
        print(f"{len(chosen)} mutants, seed {given.seed}", flush=True)
        found = run(chosen, given.seconds)
        return 1 if found.missed or (found.cut_off and math.isinf(given.seconds)) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
