"""Faults: what is wrong with a piece of mail, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class Fault(msgspec.Struct, frozen=True):
    """One thing that is wrong.

    `where` names the input: a header, a variable, an index of a list; empty for the whole.
    `code` is a stable lower_snake_case word for programs, `message` a sentence for people.
    """

    where: str
    code: str
    message: str

    def at(self, where: str) -> Fault:
        """Return the same fault seen from one level further out: `where/…`."""
        return Fault(f"{where}/{self.where}" if self.where else where, self.code, self.message)

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class Refused(ValueError):
    """Input that no mail can be made of; `faults` holds every fault, not the first."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults: tuple[Fault, ...] = tuple(faults)
        super().__init__("; ".join(map(str, self.faults)))
