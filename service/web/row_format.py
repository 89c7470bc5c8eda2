"""Rows from lines: CSV with a header (RFC 4180), or JSON, one object a line. Pure: bytes in, rows out.

A file comes in pieces of any size and is never held whole. What cannot be read is a fault with the number of its line.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from service.core.errors import BadRequest, Fault
from service.web.json_body import decode_plain, read

MAX_LINE = 128 * 1024
"""Bytes of one row."""
MAX_ROW_VALUES = 10_000
"""Values of one JSON row: they are read on the loop, within some milliseconds."""
MAX_COLUMNS = 200


QUOTED = re.compile(r'"[^"]*"')


class Row(msgspec.Struct, frozen=True):
    """One row: what it says, and where it stands in what the caller sent, as a JSON pointer."""

    place: str
    value: Any


Read = Row | list[Fault]
"""A row, or everything that is wrong with one."""


class Lines:
    """Cuts pieces into lines; a subclass makes rows of them. Raises BadRequest for a line that does not end."""

    def __init__(self) -> None:
        self._rest = b""
        self.line = 0

    def feed(self, piece: bytes) -> Iterator[Read]:
        """Take the next piece; the rows that are whole by now."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > MAX_LINE:
            raise BadRequest(f"Line {self.line + 1} is over {MAX_LINE:,} bytes.", code="line-too-long")
        for line in lines:
            yield from self._take(line)

    def close(self) -> Iterator[Read]:
        """The file is at its end; the rows that are left."""
        if self._rest:
            yield from self._take(self._rest)

    def _take(self, line: bytes) -> Iterator[Read]:
        self.line += 1
        if len(line) > MAX_LINE:
            yield [Fault(f"/lines/{self.line}", f"is over {MAX_LINE:,} bytes.")]
            return
        try:
            text = line.decode("utf-8-sig" if self.line == 1 else "utf-8").rstrip("\r")
        except UnicodeDecodeError:
            yield [Fault(f"/lines/{self.line}", "is not UTF-8.")]
            return
        yield from self.row(text)

    def row(self, text: str) -> Iterator[Read]:
        """Read one line."""
        raise NotImplementedError


class JsonLines(Lines):
    """One JSON object in each line, each a `kind` (a msgspec struct)."""

    def __init__(self, kind: type[Any]) -> None:
        super().__init__()
        self._kind = kind

    def row(self, text: str) -> Iterator[Read]:
        """Read one line."""
        if not text.strip():
            return
        place = f"/lines/{self.line}"
        try:
            found = decode_plain(read(text.encode(), MAX_ROW_VALUES), self._kind, place)
        except BadRequest as error:
            yield [Fault(place, error.detail)]
            return
        yield found if isinstance(found, list) else Row(place, found)


class Csv(Lines):
    """A header, then a row a line, or more lines where a field is quoted.

    `make` turns the fields of a row, by the names of their columns, into what the row says. `needs`: of these names the
    header must have one. The case of these and of the `others` means nothing. Fields are separated by commas, or by
    semicolons where the header is. Raises BadRequest for a header without it.
    """

    def __init__(self, needs: Sequence[str], make: Callable[[dict[str, str]], Any], others: Sequence[str] = ()) -> None:
        super().__init__()
        self._needs, self._make = needs, make
        self._known = {name.casefold(): name for name in (*needs, *others)}
        self._separator = ","
        self._columns: list[str] | None = None
        self._open: list[str] = []
        self._size = self._quotes = 0

    def row(self, text: str) -> Iterator[Read]:
        """Read one line, or the next part of a row whose quotes are still open."""
        if not self._open and not text.strip():
            return
        self._open.append(text)
        self._size += len(text) + 1
        self._quotes += text.count('"')
        if self._quotes % 2 and self._size <= MAX_LINE:
            return
        whole, begun = "\n".join(self._open), self.line - len(self._open) + 1
        self._open, self._size, self._quotes = [], 0, 0
        yield from self._record(whole, f"/lines/{begun}")

    def close(self) -> Iterator[Read]:
        """The file is at its end; a quote that was never closed is a fault."""
        yield from super().close()
        if self._open:
            yield [Fault(f"/lines/{self.line - len(self._open) + 1}", "begins a quoted field that never ends.")]

    def _record(self, text: str, place: str) -> Iterator[Read]:
        if self._columns is None:
            self._separator = _separator(text)
        try:
            fields = next(iter(csv.reader([text], strict=True, delimiter=self._separator)), [])
        except csv.Error as error:
            yield [Fault(place, f"is not CSV: {error}.")]
            return
        if not any(field.strip() for field in fields):
            return
        if self._columns is None:
            self._columns = self._header(fields)
        elif len(fields) != len(self._columns):
            yield [Fault(place, f"has {len(fields)} fields; the header has {len(self._columns)}.")]
        elif any("\0" in field for field in fields):
            yield [Fault(place, "holds the character U+0000.")]
        else:
            yield Row(place, self._make(dict(zip(self._columns, fields, strict=True))))

    def _header(self, fields: list[str]) -> list[str]:
        names = [self._known.get(field.strip().casefold(), field.strip()) for field in fields]
        if len(names) > MAX_COLUMNS or len(set(names)) != len(names):
            raise BadRequest(
                f"The header must name each column once, at most {MAX_COLUMNS} of them.", code="bad-header"
            )
        if not set(self._needs) & set(names):
            raise BadRequest(f"The header must name a column `{'` or `'.join(self._needs)}`.", code="bad-header")
        return names


def _separator(header: str) -> str:
    """Find what separates the columns of a header: a comma, or a semicolon as in many spreadsheets."""
    plain = QUOTED.sub("", header)
    return ";" if plain.count(";") > plain.count(",") else ","
