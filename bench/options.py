"""What a run was asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.machine import Cores


@dataclass(frozen=True)
class Options:
    """`seconds`: how long one measurement lasts; `only`: words that select contestants, by commas."""

    rounds: int = 3
    quick: bool = False
    only: str = ""
    cores: Cores = field(default_factory=Cores.found)

    @property
    def seconds(self) -> float:
        return 1.0 if self.quick else 3.0
