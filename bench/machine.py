"""The machine: which core does the measured work, and what a tree of processes costs it."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Cores:
    """One core for what is measured, one for everything else; None where cores cannot be chosen."""

    measured: int | None
    others: int | None

    @classmethod
    def found(cls) -> Cores:
        if not hasattr(os, "sched_getaffinity"):
            return cls(None, None)
        cores = sorted(os.sched_getaffinity(0))
        return cls(cores[0], cores[1]) if len(cores) > 1 else cls(None, None)

    def settle_here(self) -> None:
        """Keep this process, and the servers it starts, off the measured core."""
        if self.others is not None:
            os.sched_setaffinity(0, {self.others})

    def give(self) -> None:
        """Put the calling process, and what it starts, on the measured core."""
        if self.measured is not None:
            os.sched_setaffinity(0, {self.measured})


def described() -> dict[str, str | int]:
    """What the figures were taken on."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines(PROC / "cpuinfo") if line.startswith("model name")), ""
    )
    return {
        "cpu": model or platform.processor() or "unknown",
        "cores": os.cpu_count() or 0,
        "python": platform.python_version(),
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def tree(pid: int) -> list[int]:
    """The process and everything it started."""
    parents: dict[int, list[int]] = {}
    for path in PROC.glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found = [pid]
    for one in found:
        found.extend(parents.get(one, ()))
    return found


def cpu_seconds(pids: list[int]) -> float:
    """CPU time that these processes have used so far, all their threads included."""
    return sum(map(_cpu_of, pids))


def _cpu_of(pid: int) -> float:
    try:
        return time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3): to the nanosecond
    except OSError:
        return 0.0


def memory(pids: list[int]) -> float:
    """Bytes that these processes take, shared pages counted once among them (PSS)."""
    return sum(_pss(pid) for pid in pids)


def _pss(pid: int) -> int:
    for line in _lines(PROC / str(pid) / "smaps_rollup"):
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
