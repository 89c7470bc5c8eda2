"""Prints what the doctor found: for a person, or as JSON."""

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from service.cli.doctor.finding import Finding, Mark, Section

SIGNS = {Mark.WELL: "[green]✓[/]", Mark.DOUBTFUL: "[yellow]![/]", Mark.WRONG: "[red]✗[/]"}


def show(console: Console, section: Section) -> None:
    """Print one section: a line per finding, and under it how to mend it."""
    table = Table(box=None, show_header=False, pad_edge=False, title=section.name, title_justify="left")
    table.add_column()
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(justify="right", no_wrap=True, style="dim")
    for finding in section.findings:
        table.add_row(SIGNS[finding.mark], finding.what, _words(finding), _time(finding))
    console.print(table)
    console.print()


def verdict(console: Console, sections: list[Section]) -> None:
    """Print the last line."""
    marks = [finding.mark for section in sections for finding in section.findings]
    wrong, doubtful = marks.count(Mark.WRONG), marks.count(Mark.DOUBTFUL)
    if wrong:
        console.print(f"[red]✗ {wrong} of {len(marks)} do not work.[/] What to do stands beside each.")
    elif doubtful:
        console.print(f"[yellow]! Everything works; {doubtful} of {len(marks)} weaken a promise.[/]")
    else:
        console.print(f"[green]✓ All {len(marks)} are well.[/]")


def as_json(sections: list[Section]) -> str:
    """Return everything as one JSON object."""
    found = {"ok": not any(section.wrong for section in sections), "sections": sections}
    return msgspec.json.format(msgspec.json.encode(found)).decode()


def _words(finding: Finding) -> str:
    detail = escape(finding.detail.replace("\n", " "))
    return f"{detail}\n[bold]→ {escape(finding.mend)}[/]" if finding.mend else detail


def _time(finding: Finding) -> str:
    return "" if finding.seconds is None else f"{finding.seconds * 1000:.1f} ms"
