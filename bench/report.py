"""Figures of several rounds as one table: medians, and how many times our figure is a peer's."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Figures = dict[str, float]


@dataclass(frozen=True)
class Column:
    """One figure of each row: its key, its heading, how it is written."""

    key: str
    title: str
    form: str = ",.0f"


@dataclass(frozen=True)
class Target:
    """A promise about two rows: `figure` of `ours` over that of the best of `beside` (lowest, if less is better)."""

    ours: str
    figure: str
    beside: tuple[str, ...]
    least: float | None = None
    most: float | None = None
    less_is_better: bool = False
    text: str = ""


@dataclass
class Report:
    """The rounds of one benchmark."""

    name: str
    title: str
    columns: tuple[Column, ...]
    against: str = ""
    """The row whose figure `relative` is 1."""
    relative: str = ""
    rounds: dict[str, list[Figures]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, row: str, figures: Figures) -> None:
        self.rounds.setdefault(row, []).append(figures)

    def fail(self, row: str, why: str) -> None:
        self.failures[row] = why

    def medians(self) -> dict[str, Figures]:
        """For each row the median of each figure."""
        return {row: _medians(rounds) for row, rounds in self.rounds.items()}

    def spread(self, row: str, key: str) -> float:
        """The widest deviation from the median, as a share of it."""
        values = [figures[key] for figures in self.rounds[row] if key in figures]
        middle = statistics.median(values) if values else 0.0
        return max(abs(value - middle) for value in values) / middle if middle else 0.0

    def text(self) -> str:
        """The table."""
        found = self.medians()
        base = found.get(self.against, {}).get(self.relative)
        heads = ["", *(column.title for column in self.columns)]
        if base:
            heads += [f"× {self.against}", "spread"]
        lines = [heads]
        for row, figures in found.items():
            cells = [row, *(_cell(figures.get(column.key), column.form) for column in self.columns)]
            if base:
                mine = figures.get(self.relative)
                cells += [_cell(mine / base if mine is not None else None, ".3f")]
                cells += [f"{self.spread(row, self.relative):.0%}"]
            lines.append(cells)
        told = [self.title, *_aligned(lines)]
        told += [f"  {row}: not measured: {_brief(why)}" for row, why in self.failures.items() if row not in found]
        told += [f"  {line}" for line in (*self.verdicts(), *self.notes)]
        return "\n".join(told)

    def verdicts(self) -> list[str]:
        """Each target: the ratio reached, and whether that is what was promised."""
        found = self.medians()
        return [line for target in self.targets if (line := _verdict(target, found)) is not None]

    def as_json(self) -> dict[str, Any]:
        """Everything measured, for `--json`."""
        return {
            "name": self.name,
            "title": self.title,
            "medians": self.medians(),
            "rounds": self.rounds,
            "failures": self.failures,
            "verdicts": self.verdicts(),
        }


def _brief(why: str) -> str:
    """The first line and, of what a process said, the last."""
    first, *rest = why.strip().splitlines()
    return f"{first} … {rest[-1].strip()}" if rest else first


def _medians(rounds: list[Figures]) -> Figures:
    keys = dict.fromkeys(key for figures in rounds for key in figures)
    return {key: statistics.median(figures[key] for figures in rounds if key in figures) for key in keys}


def _cell(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _aligned(lines: list[list[str]]) -> list[str]:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    out = []
    for line in lines:
        first, *rest = (
            cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in _numbered(line, widths)
        )
        out.append("  " + "  ".join((first, *rest)))
    out.insert(1, "  " + "  ".join("─" * width for width in widths))
    return out


def _numbered(line: list[str], widths: list[int]) -> Iterable[tuple[int, tuple[str, int]]]:
    return enumerate(zip(line, widths, strict=True))


def _verdict(target: Target, found: Mapping[str, Figures]) -> str | None:
    mine = found.get(target.ours, {}).get(target.figure)
    theirs = {row: found[row][target.figure] for row in target.beside if target.figure in found.get(row, {})}
    if mine is None or not theirs:
        return None
    pick: Callable[..., str] = min if target.less_is_better else max
    best = pick(theirs, key=theirs.__getitem__)
    ratio = mine / theirs[best] if theirs[best] else float("inf")
    kept = (target.least is None or ratio >= target.least) and (target.most is None or ratio <= target.most)
    bound = f"≥ {target.least:.3g}" if target.least is not None else f"≤ {target.most:.3g}"
    return f"{'✓' if kept else '✗'} {target.text or target.ours}: {ratio:.2f} × {best} (target {bound} ×)"
