"""`callboard doctor`: tests Postgres, Redis and the way to the mail server, and says how to mend what fails."""

import asyncio
from collections.abc import Callable

from rich.console import Console

from service.cli.doctor import broker, mail, postgres, report, work
from service.cli.doctor.finding import Finding, Mark, Section
from service.settings import Settings

__all__ = ["Finding", "Mark", "Section", "examine", "run"]


def run(
    settings: Settings, *, as_json: bool = False, send_to: str | None = None, console: Console | None = None
) -> int:
    """Examine everything and print it, as it is found or as JSON; 1 where something does not work, else 0."""
    out = console or Console()
    if as_json:
        sections = asyncio.run(examine(settings, send_to))
        out.print(report.as_json(sections), markup=False, highlight=False, soft_wrap=True)
    else:
        with out.status("Looking at Postgres, Redis and the mail server…"):
            sections = asyncio.run(examine(settings, send_to, lambda section: report.show(out, section)))
        report.verdict(out, sections)
    return 1 if any(section.wrong for section in sections) else 0


async def examine(
    settings: Settings, send_to: str | None = None, told: Callable[[Section], None] = lambda _: None
) -> list[Section]:
    """Examine the servers and the work at once; `told` gets each section, in order, as soon as it is done."""
    sections = []
    async with asyncio.TaskGroup() as group:
        looks = [
            group.create_task(look)
            for look in (
                postgres.examine(settings),
                broker.examine(settings),
                work.examine(settings),
                mail.examine(settings, send_to),
            )
        ]
        for look in looks:
            sections.append(await look)
            told(sections[-1])
    return sections
