"""One run: mails are handed in while faults are injected; then everything heals, drains, and is judged."""

import asyncio
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

import service.db.migrate
from service.db import engine as db
from service.dev.chaos.faults import FAULTS
from service.dev.chaos.oracle import Count, Violation, count, violations
from service.dev.chaos.site import TENANTS, Site, open_site
from service.dev.databases import Databases
from service.dev.stack import Stack
from service.emails.models import Lane
from service.settings import Settings

WORKERS = 2
PER_FAULT = 40
"""Mails that are handed in around each fault."""
LEAST, MOST = 12, 50
"""Faults of a run, however few its mails, and however many."""
MOST_RECIPIENTS = 4
"""Recipients of an email at most."""
SPREAD = 1.5
"""Seconds over which the mails of one fault are handed in."""
STEPS = 3
"""Steps of a run beside its faults: start, drain, judge."""

Say = Callable[[str], None]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a run showed; `seconds` it took to come to rest."""

    seed: int
    count: Count
    violations: list[Violation]
    faults: Counter[str]
    answers: Counter[str]
    seconds: float


def plan(seed: int, mails: int, faults: int | None = None) -> list[str]:
    """The faults of a seed, in order: each kind before any comes again."""
    dice = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    many = max(LEAST, min(MOST, mails // PER_FAULT)) if faults is None else faults
    chosen: list[str] = []
    while len(chosen) < many:
        chosen += dice.sample(sorted(FAULTS), len(FAULTS))
    return chosen[:many]


async def run(
    stack: Stack, database_url: str, folder: Path, *, seed: int, mails: int, names: list[str], say: Say
) -> Verdict:
    """Breaks what `names` says while `mails` are handed in. `say` is told of each step."""
    dice = random.Random(f"{seed}-dice")  # noqa: S311
    unexpected: list[str] = []
    async with open_site(stack, database_url, folder) as site:
        say("starting")
        await site.open(WORKERS, api=("api_db",), through=("db", "redis", "smtp"))
        callers: list[asyncio.Task[None]] = []
        for number, name in enumerate(names):
            share = range(mails * number // len(names), mails * (number + 1) // len(names))
            callers += [
                asyncio.create_task(_hand_in(site, f"s{seed}-{mail}", dice, dice.uniform(0, SPREAD))) for mail in share
            ]
            await asyncio.sleep(dice.uniform(0, SPREAD / 2))
            say(name)
            wrong = await FAULTS[name](site, dice)
            unexpected += [wrong] if wrong else []
        say("draining")
        await asyncio.gather(*callers)
        seconds = await site.drain()
        say("judging")
        seen = await site.gather(seconds, tuple(unexpected))
        return Verdict(
            seed=seed,
            count=count(seen),
            violations=violations(seen),
            faults=Counter(names),
            answers=site.caller.answers,
            seconds=seconds,
        )


def addresses(key: str, dice: random.Random) -> list[str]:
    """One to four recipients of an email: most are there, some are deferred at first, some are refused."""
    kinds = dice.choices(("there", "deferred", "refused"), (80, 14, 6), k=dice.randint(1, MOST_RECIPIENTS))
    return [f"{kind}-{number}-{key}@example.org" for number, kind in enumerate(kinds)]


async def _hand_in(site: Site, key: str, dice: random.Random, delay: float) -> None:
    to, tenant, lane = addresses(key, dice), dice.randrange(len(TENANTS)), dice.choice(list(Lane))
    await asyncio.sleep(delay)
    await site.caller.send(key, to=to, tenant=tenant, lane=lane.value)


async def migrated(database_url: str) -> None:
    """Brings a database to the newest schema."""
    engine = db.create_engine(Settings.from_env({"DATABASE_URL": database_url}), role=None)
    try:
        await service.db.migrate.upgrade(engine)
    finally:
        await engine.dispose()


@contextmanager
def fresh(stack: Stack, name: str) -> Iterator[tuple[str, Path]]:
    """A database of this name and a folder for logs, both gone afterwards."""
    databases = Databases(stack.postgres.url("postgres"))
    databases.create(name)
    try:
        with tempfile.TemporaryDirectory(prefix="callboard-chaos-") as folder:
            yield stack.postgres.url(name), Path(folder)
    finally:
        databases.drop(name)
        databases.close()
