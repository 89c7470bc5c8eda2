"""Many rows as one array for each column: what one `INSERT … SELECT … FROM unnest(…)` takes."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec


class Table(msgspec.Struct, frozen=True):
    """A slice's record table: its name and the (name, Postgres type) of the columns it fills, `id` first.

    Values are what asyncpg takes for the type; for `jsonb` any JSON value, or a `msgspec.Raw`; for `text[]` a list of
    strings.
    """

    name: str
    columns: tuple[tuple[str, str], ...]

    def arrays(self, records: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
        """Turn records into one array for each column."""
        found = [list(column) for column in zip(*records, strict=True)] or [[] for _ in self.columns]
        return [
            [None if value is None else encode(value) for value in column] if (encode := ENCODERS.get(kind)) else column
            for column, (_, kind) in zip(found, self.columns, strict=True)
        ]

    def select(self, first: int = 1, alias: str = "r") -> str:
        """Write the SELECT over parameters `$first…`, each column in its own type."""
        names = ", ".join(name for name, _ in self.columns)
        kinds = ["text" if kind in ENCODERS else kind for _, kind in self.columns]
        casts = ", ".join(
            f"{alias}.{name}::{kind}" if kind in ENCODERS else f"{alias}.{name}" for name, kind in self.columns
        )
        return f"SELECT {casts} FROM unnest({parameters(first, kinds)}) AS {alias}({names})"  # noqa: S608 (our own names)


def parameters(first: int, kinds: Sequence[str]) -> str:
    """Write array parameters from `$first` on, one for each kind."""
    return ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(kinds, first))


def _array(values: Sequence[str]) -> str:
    """Write a text[] literal: an array of arrays would be flattened by unnest."""
    return "{" + ",".join('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values) + "}"


ENCODERS: dict[str, Callable[[Any], str]] = {
    "jsonb": lambda value: msgspec.json.encode(value).decode(),
    "json": lambda value: msgspec.json.encode(value).decode(),
    "text[]": _array,
}
