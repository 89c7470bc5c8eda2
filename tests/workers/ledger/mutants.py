"""Breaks each guard of the ledger's statements, one at a time, and sees whether the test of the model notices.

    python -m tests.workers.ledger.mutants [PART OF A NAME ...]     # all of them: about ten minutes

A mutant that survives is a guard that the model does not test: it ends with 1 and names them.
"""

import asyncio
import importlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from service.db import migrate
from service.db.engine import create_engine
from service.dev.databases import Databases
from service.dev.stack import throwaway_stack
from service.settings import Settings
from tests.workers.ledger.stories import Machine, opened

EXAMPLES = 400
"""Runs of forty steps in which a mutant has to be noticed."""


@dataclass(frozen=True)
class Mutant:
    """One statement without one of its guards: `texts` are what is replaced, everywhere it stands, and by what."""

    name: str
    where: str
    texts: tuple[tuple[str, str], ...]

    @property
    def statement(self) -> tuple[object, str]:
        """The module, and the name of the statement in it."""
        module, _, name = self.where.rpartition(".")
        return importlib.import_module(f"callboard_workers.ledger.{module}"), name

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Inside, the ledger sends the broken statement."""
        module, name = self.statement
        whole = broken = str(getattr(module, name))
        for old, new in self.texts:
            if old not in broken:
                raise LookupError(f"{self.name}: {self.where} does not say {old!r}")
            broken = broken.replace(old, new)
        setattr(module, name, broken)
        try:
            yield
        finally:
            setattr(module, name, whole)


def _mutant(name: str, where: str, *texts: tuple[str, str]) -> Mutant:
    return Mutant(name, where, texts)


def _at_once(seconds: str) -> tuple[str, str]:
    return f"make_interval(secs => {seconds})", f"0 * make_interval(secs => {seconds})"


def _elsewhere(outcome: str) -> tuple[str, str]:
    """Where the note does not collide with that of the attempt: it would be noticed for a wrong reason."""
    return f"SELECT id, epoch, '{outcome}'", f"SELECT id, -epoch - (random() * 1000000)::int, '{outcome}'"


def _without(name: str, where: str, *texts: str) -> Mutant:
    return Mutant(name, where, tuple((text, "") for text in texts))


RUNNING = ("m.state || '' = 'running'", "true")
AGAIN = ("epoch = m.epoch + 1", "epoch = m.epoch")
ALONE = "+ (m.begun IS NOT DISTINCT FROM 1)::int"
ANY_EPOCH = (" AND m.epoch = c.epoch", "")

# Left out: what another guard says again, such as the state of a row at the fence: only what runs has a lease.
MUTANTS = (
    _mutant("claim what is not queued", "claims.CLAIM", ("m.state || '' = 'queued'", "true")),
    _mutant("claim what is not due", "claims.CLAIM", ("m.due_at <= clock_timestamp()", "true")),
    _without("claim what is to be canceled", "claims.CLAIM", "AND NOT m.cancel_requested"),
    _mutant("claim what is too late", "claims.CLAIM", ("m.expires_at > clock_timestamp()", "true")),
    _mutant("claim without raising the epoch", "claims.CLAIM", AGAIN),
    _mutant("claim without a lease", "claims.CLAIM", ("make_interval(secs => bell.lease)", "interval '0'")),
    _mutant("claim and keep a definite no", "claims.CLAIM", ("error = m.error - 'definite'", "error = m.error")),
    _without("fence without epoch", "fences.FENCE", " AND m.epoch = f.epoch"),
    _without("fence what is to be canceled", "fences.FENCE", "AND NOT m.cancel_requested"),
    _mutant("fence without a lease", "fences.FENCE", ("m.lease_until > clock_timestamp()", "true OR now() > now()")),
    _mutant("fence at the end of a lease", "fences.FENCE", _at_once("$3")),
    _mutant("fence without intent", "fences.FENCE", ("SET intent = true", "SET intent = m.intent")),
    _mutant("renew without epoch", "leases.RENEW", ANY_EPOCH),
    _mutant("renew what does not run", "leases.RENEW", RUNNING),
    _mutant("renew for no time", "leases.RENEW", _at_once("$3")),
    _mutant("renew and keep still of a wish to cancel", "leases.RENEW", ("m.cancel_requested AND", "false AND")),
    _without("renew and cancel past the fence", "leases.RENEW", "AND NOT m.intent"),
    _mutant("hear of a wish without epoch", "leases.CANCELED", ANY_EPOCH),
    _without("hear of a wish past the fence", "leases.CANCELED", "AND NOT m.intent"),
    _mutant("release without epoch", "leases.RELEASE", ANY_EPOCH),
    _mutant("release what does not run", "leases.RELEASE", RUNNING),
    _mutant("release more than what is canceled", "leases.RELEASE", ("m.cancel_requested OR NOT $3", "$3 OR NOT $3")),
    _mutant(
        "release what is to be canceled",
        "leases.RELEASE",
        ("CASE WHEN m.cancel_requested THEN 'canceled' ELSE 'queued' END", "'queued'"),
    ),
    _mutant("release and keep intent", "leases.RELEASE", ("intent = false", "intent = m.intent")),
    _mutant("release without a definite no", "leases.RELEASE", ("CASE WHEN m.intent THEN", "CASE WHEN false THEN")),
    _mutant(
        "settle without epoch",
        "settles.SETTLE",
        ("WHERE m.id = i.id AND m.epoch = i.epoch\n", "WHERE m.id = i.id\n"),
    ),
    _mutant("settle what does not run", "settles.SETTLE", ("(m.state || '' = 'running' AND (", "(true AND (")),
    _mutant(
        "settle past the fence without an answer",
        "settles.SETTLE",
        ("NOT m.intent OR i.definite OR i.state IN ('done', 'uncertain')", "true"),
    ),
    _mutant("settle and hear no late success", "settles.SETTLE", ("(i.state = 'done' OR (i.definite", "((i.definite")),
    _mutant(
        "settle and hear no late refusal", "settles.SETTLE", ("OR (i.definite AND i.state IN ('queued', 'dead'))", "")
    ),
    _mutant(
        "settle a doubt by a guess",
        "settles.SETTLE",
        ("(i.definite AND i.state IN ('queued', 'dead'))", "i.state IN ('queued', 'dead')"),
    ),
    _mutant(
        "settle and run what is to be canceled",
        "settles.SETTLE",
        ("WHEN i.state = 'queued' AND m.cancel_requested AND m.state = 'running' THEN 'canceled'", ""),
    ),
    _mutant(
        "settle a doubt and run what is to be canceled",
        "settles.SETTLE",
        ("WHEN i.state = 'queued' AND m.cancel_requested THEN 'dead'", ""),
    ),
    _mutant(
        "settle and forget intent",
        "settles.SETTLE",
        ("intent = m.intent AND i.state IN ('done', 'uncertain')", "intent = false"),
    ),
    _mutant(
        "settle and keep intent",
        "settles.SETTLE",
        ("intent = m.intent AND i.state IN ('done', 'uncertain')", "intent = m.intent"),
    ),
    _mutant("settle without counting", "settles.SETTLE", ("m.attempts + i.attempts", "m.attempts")),
    _mutant("settle without counting snoozes", "settles.SETTLE", ("m.snoozes + i.snoozes", "m.snoozes")),
    _mutant(
        "settle and be due at once",
        "settles.SETTLE",
        _at_once("i.delay"),
    ),
    _mutant("settle and keep the lease", "settles.SETTLE", ("lease_until = NULL", "lease_until = m.lease_until")),
    _mutant("settle and note no definite no", "settles.SETTLE", ("CASE WHEN i.definite THEN", "CASE WHEN false THEN")),
    _without("expire what is not late", "sweeper.EXPIRE", "AND expires_at <= statement_timestamp()"),
    _mutant(
        "expire what runs",
        "sweeper.EXPIRE",
        ("state = 'queued'", "state IN ('queued', 'running')"),
        ("m.state || '' = 'queued'", "true"),
    ),
    _without("reclaim past the fence", "sweeper.RECLAIM", "AND NOT intent", "AND NOT m.intent"),
    _mutant(
        "reclaim what is alive",
        "sweeper.RECLAIM",
        ("AND lease_until < clock_timestamp()", ""),
        ("AND m.lease_until < clock_timestamp()", ""),
    ),
    _without("reclaim without counting", "sweeper.RECLAIM", ALONE),
    _mutant("reclaim and count what had company", "sweeper.RECLAIM", (ALONE, "+ 1")),
    _mutant("reclaim for ever", "sweeper.RECLAIM", ("m.crashes + 1 >= m.max_crashes", "false")),
    _mutant(
        "reclaim once too often",
        "sweeper.RECLAIM",
        ("m.crashes + 1 >= m.max_crashes", "m.crashes >= m.max_crashes"),
    ),
    _mutant(
        "reclaim and quarantine what had company",
        "sweeper.RECLAIM",
        ("WHEN lapsed.begun IS NOT DISTINCT FROM 1 AND", "WHEN"),
    ),
    _mutant("reclaim and never halve", "sweeper.RECLAIM", ("(m.begun + 1) / 2", "m.begun")),
    _mutant("reclaim and halve for all workers", "sweeper.RECLAIM", ("PARTITION BY worker", "")),
    _mutant("reclaim and keep what began", "sweeper.RECLAIM", ("begun = NULL", "begun = m.begun")),
    _mutant(
        "claim a suspect beside others", "claims.CLAIM", ("WHEN 0 THEN free.isolation IS NULL", "WHEN 0 THEN true")
    ),
    _mutant("begin without epoch", "leases.BEGIN", ANY_EPOCH),
    _mutant("begin what does not run", "leases.BEGIN", RUNNING),
    _without("release and keep what began", "leases.RELEASE", "begun = NULL, "),
    _without("settle and stay a suspect", "settles.SETTLE", "isolation = NULL, "),
    _without("settle and keep counting crashes", "settles.SETTLE", "crashes = 0, "),
    _without("settle and keep counting deaths", "settles.SETTLE", "deaths = 0, "),
    _without("reclaim what is to be canceled", "sweeper.RECLAIM", "WHEN m.cancel_requested THEN 'canceled'"),
    _mutant("reclaim and keep the lease", "sweeper.RECLAIM", ("lease_until = NULL", "lease_until = m.lease_until")),
    _without("doubt what has not passed its fence", "sweeper.DOUBTFUL", "AND intent", "AND m.intent"),
    _mutant(
        "doubt what may still be answered",
        "sweeper.DOUBTFUL",
        _at_once("$2"),
    ),
    _without("doubt without counting", "sweeper.DOUBTFUL", ALONE),
    _mutant("doubt and count what had company", "sweeper.DOUBTFUL", (ALONE, "+ 1")),
    _mutant("doubt and queue again", "sweeper.DOUBTFUL", ("SET state = 'uncertain'", "SET state = 'queued'")),
    _without("resend what is held", "sweeper.RESEND", "AND uncertain_policy = 'resend'"),
    _without("resend what is to be canceled", "sweeper.RESEND", "AND NOT cancel_requested"),
    _mutant(
        "resend before the grace is over",
        "sweeper.RESEND",
        _at_once("$2"),
    ),
    _mutant("resend for ever", "sweeper.RESEND", (") < messages.max_crashes", ") >= 0")),
    _mutant(
        "resend without raising the epoch",
        "sweeper.RESEND",
        AGAIN,
        (
            "(message_id, epoch, outcome, started_at)\n    SELECT id, epoch,",
            "(message_id, epoch, outcome, started_at)\n    SELECT id, -epoch - (random() * 1000000)::int,",
        ),
    ),
    _mutant("resend and keep intent", "sweeper.RESEND", ("intent = false", "intent = m.intent")),
    _without("ring before it is due", "sweeper.RING", "AND ring_at <= statement_timestamp()"),
    _mutant("ring never", "sweeper.RING", ("ring_at <= statement_timestamp()", "false")),
    _mutant(
        "cancel past the fence", "operations.CANCEL", ("(m.state = 'running' AND NOT m.intent)", "m.state = 'running'")
    ),
    _mutant(
        "cancel what runs at once",
        "operations.CANCEL",
        ("WHEN m.state = 'queued' THEN 'canceled'", "WHEN true THEN 'canceled'"),
    ),
    _mutant("cancel and ask for nothing", "operations.CANCEL", ("cancel_requested = true", "cancel_requested = false")),
    _mutant(
        "requeue without raising the epoch",
        "operations.REQUEUE",
        AGAIN,
        _elsewhere("requeued"),
    ),
    _mutant("requeue what has a successor", "operations.REQUEUE", ("o.key = m.key", "false")),
    _mutant("requeue and keep counting", "operations.REQUEUE", ("crashes = 0", "crashes = m.crashes")),
    _mutant("requeue and keep intent", "operations.REQUEUE", ("intent = false", "intent = m.intent")),
    _mutant(
        "requeue and keep the wish to cancel",
        "operations.REQUEUE",
        ("cancel_requested = false", "cancel_requested = m.cancel_requested"),
    ),
    _mutant("requeue what stays late", "operations.REQUEUE", ("expires_at = NULL", "expires_at = m.expires_at")),
    _mutant(
        "requeue for later",
        "operations.REQUEUE",
        ("due_at = clock_timestamp()", "due_at = clock_timestamp() + interval '1 h'"),
    ),
    _mutant(
        "resolve what is not in doubt",
        "operations.RESOLVE",
        ("m.state || '' = ANY($2::text[])", "($2::text[] IS NOT NULL)"),
    ),
    _mutant(
        "resolve without raising the epoch",
        "operations.RESOLVE",
        AGAIN,
        _elsewhere("resolved"),
    ),
)


def killed(mutant: Mutant, seed: int, examples: int = EXAMPLES) -> BaseException | None:
    """What the test of the model says of a mutant; None if it notices nothing. `opened` is entered."""
    machine = hypothesis.seed(seed)(type("Mutated", (Machine,), {}))
    chosen = settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    with mutant.alive():
        try:
            run_state_machine_as_test(machine, settings=chosen)
        except Exception as error:
            if not Machine.steps:  # it never began: nothing was noticed
                raise
            return error
    return None


def check(url: str, mutants: Sequence[Mutant], say: Callable[[str], None], seed: int = 1) -> list[Mutant]:
    """The mutants that survive, over an empty database."""
    survivors: list[Mutant] = []
    with opened(url):
        for mutant in mutants:
            Machine.steps.clear()
            began = time.monotonic()
            found = killed(mutant, seed)
            took = f"{time.monotonic() - began:5.1f} s, {sum(Machine.steps.values()):6} steps"
            say(f"{'survives' if found is None else 'killed  '} {took}  {mutant.name}  {type(found).__name__}")
            survivors += [mutant] if found is None else []
    return survivors


def main(words: Sequence[str]) -> int:
    """Checks the mutants whose names hold one of the words, all by default."""
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.name for word in words)]
    with throwaway_stack() as stack:
        databases = Databases(stack.postgres.url("postgres"))
        databases.create("mutants")
        url = stack.postgres.url("mutants")
        asyncio.run(_migrate(url))
        survivors = check(url, chosen, lambda text: print(text, flush=True))
        databases.close()
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} mutants are noticed")
    for mutant in survivors:
        print(f"nobody notices: {mutant.name} ({mutant.where})")
    return 1 if survivors else 0


async def _migrate(url: str) -> None:
    engine = create_engine(Settings.from_env({"DATABASE_URL": url}), role=None)
    await migrate.upgrade(engine)
    await engine.dispose()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
