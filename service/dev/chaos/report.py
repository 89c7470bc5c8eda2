"""`callboard chaos` on a terminal: a progress bar for each seed, and the table of verdicts."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import msgspec
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from service.dev.chaos.faults import FAULTS
from service.dev.chaos.run import MOST_RECIPIENTS, STEPS, Verdict, fresh, migrated, plan
from service.dev.chaos.run import run as run_one
from service.dev.stack import Stack, throwaway_stack

EXTERNAL = ("DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL", "SMTP_HOST")
"""Where these are set, somebody means servers of their own."""


class Refused(RuntimeError):
    """Chaos does not run here; the message says why and what to do."""


def refuse_external(environ: Mapping[str, str]) -> None:
    """Raises Refused where the environment names servers: chaos kills what it runs on."""
    if named := [name for name in EXTERNAL if environ.get(name)]:
        raise Refused(
            f"chaos kills and empties the servers it runs on, so it uses only its own, and you have set "
            f"{' and '.join(named)}. Unset {'it' if len(named) == 1 else 'them'} and run it again."
        )


def run(seeds: int, mails: int, start: int, *, as_json: bool = False) -> int:
    """Runs the seeds `start` to `start + seeds - 1` and prints their verdicts. The exit code: 1 after a violation."""
    try:
        refuse_external(os.environ)
    except Refused as refusal:
        print(f"callboard chaos: {refusal}", file=sys.stderr)  # noqa: T201
        return 2
    console = Console(stderr=as_json)
    with throwaway_stack() as stack:
        verdicts = [_seed(stack, console, seed, mails) for seed in range(start, start + seeds)]
    console.print(table(verdicts))
    for verdict in verdicts:
        for violation in verdict.violations:
            console.print(f"[red]seed {verdict.seed}: {escape(str(violation))}")
    if as_json:
        print(json.dumps(msgspec.to_builtins(verdicts)))  # noqa: T201
    return 1 if any(verdict.violations for verdict in verdicts) else 0


def _seed(stack: Stack, console: Console, seed: int, mails: int) -> Verdict:
    names = plan(seed, mails)
    columns: list[Any] = [TextColumn("seed {task.fields[seed]}"), BarColumn(), MofNCompleteColumn()]
    with Progress(*columns, TextColumn("{task.description}"), TimeElapsedColumn(), console=console) as progress:
        bar = progress.add_task("starting", total=len(names) + STEPS, seed=seed)

        def say(text: str) -> None:
            progress.update(bar, description=text.replace("_", " "), advance=1)

        with fresh(stack, f"chaos_{seed}") as (url, folder):

            async def whole() -> Verdict:
                await migrated(url)
                return await run_one(stack, url, folder, seed=seed, mails=mails, names=names, say=say)

            verdict = asyncio.run(whole())
        progress.update(
            bar, description="well" if not verdict.violations else "[red]violated", completed=len(names) + STEPS
        )
        return verdict


def table(verdicts: list[Verdict]) -> Table:
    """The verdicts, one row for each seed, and their sum."""
    found = Table(
        title="What was broken, and what became of the mail",
        caption=f"{len(FAULTS)} kinds of fault. An email has 1 to {MOST_RECIPIENTS} recipients: figures are of pairs.\n"
        "failed: refused by the mail server; lost: missing, or given up without that.",
        box=box.SIMPLE_HEAD,  # eleven columns in a terminal of eighty
        padding=0,
    )
    for name in (
        "seed",
        "faults",
        "emails",
        "pairs",
        "sent",
        "failed",
        "lost",
        "duplicated",
        "uncertain",
        "broken",
        "rest",
    ):
        found.add_column(name, justify="right")
    for verdict in verdicts:
        found.add_row(*_cells(str(verdict.seed), [verdict]))
    if len(verdicts) > 1:
        found.add_section()
        found.add_row(*_cells("all", verdicts))
    return found


def _cells(head: str, verdicts: list[Verdict]) -> list[str]:
    sums = [
        sum(verdict.faults.total() for verdict in verdicts),
        *(
            sum(getattr(verdict.count, name) for verdict in verdicts)
            for name in ("accepted", "recipients", "sent", "failed", "lost", "duplicated", "uncertain")
        ),
        sum(len(verdict.violations) for verdict in verdicts),
    ]
    return [head, *(f"{each:,}" for each in sums), f"{max(verdict.seconds for verdict in verdicts):.0f} s"]
