"""Recipients from lines: CSV with a header (RFC 4180), or JSON, one object a line. Pure: bytes in, rows out.

A file comes in pieces of any size and is never held whole. What cannot be read is a fault with the number of its line.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any, Protocol

import msgspec

from service.emails.bulk.schemas import RecipientIn
from service.errors import BadRequest, Fault
from service.web.decoding import decode_plain, read

MAX_LINE = 128 * 1024
"""Bytes of one row."""
MAX_COLUMNS = 200
ADDRESS = ("to", "email")


class Row(msgspec.Struct, frozen=True):
    """One recipient, and where it stands in what the caller sent, as a JSON pointer."""

    place: str
    recipient: RecipientIn


Read = Row | Fault


class Reader(Protocol):
    """Turns the pieces of a file into rows."""

    def feed(self, piece: bytes) -> Iterator[Read]: ...

    def close(self) -> Iterator[Read]: ...


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
            yield Fault(f"/lines/{self.line}", f"is over {MAX_LINE:,} bytes.")
            return
        try:
            text = line.decode("utf-8-sig" if self.line == 1 else "utf-8").rstrip("\r")
        except UnicodeDecodeError:
            yield Fault(f"/lines/{self.line}", "is not UTF-8.")
            return
        yield from self.row(text)

    def row(self, text: str) -> Iterator[Read]:
        """Read one line."""
        raise NotImplementedError


class JsonLines(Lines):
    """One JSON object in each line: `{"to": …, "variables": {…}, "locale": …}`."""

    def row(self, text: str) -> Iterator[Read]:
        """Read one line."""
        if not text.strip():
            return
        place = f"/lines/{self.line}"
        try:
            found = decode_plain(read(text.encode()), RecipientIn, place)
        except BadRequest as error:
            yield Fault(place, error.detail)
            return
        if isinstance(found, RecipientIn):
            yield Row(place, found)
        else:
            yield from found


class Csv(Lines):
    """A header, then a row a line, or more lines where a field is quoted.

    The column `to` (or `email`) is the address, `locale` the language; every other column is a variable, and an empty
    field one that is not given. Raises BadRequest for a header without an address.
    """

    def __init__(self) -> None:
        super().__init__()
        self._columns: list[str] | None = None
        self._open: list[str] = []

    def row(self, text: str) -> Iterator[Read]:
        """Read one line, or the next part of a row whose quotes are still open."""
        self._open.append(text)
        whole = "\n".join(self._open)
        if whole.count('"') % 2 and len(whole) <= MAX_LINE:
            return
        begun = self.line - len(self._open) + 1
        self._open = []
        yield from self._record(whole, f"/lines/{begun}")

    def close(self) -> Iterator[Read]:
        """The file is at its end; a quote that was never closed is a fault."""
        yield from super().close()
        if self._open:
            yield Fault(f"/lines/{self.line - len(self._open) + 1}", "begins a quoted field that never ends.")

    def _record(self, text: str, place: str) -> Iterator[Read]:
        try:
            fields = next(iter(csv.reader([text], strict=True)), [])
        except csv.Error as error:
            yield Fault(place, f"is not CSV: {error}.")
            return
        if not any(field.strip() for field in fields):
            return
        if self._columns is None:
            self._columns = _header(fields)
        elif len(fields) != len(self._columns):
            yield Fault(place, f"has {len(fields)} fields; the header has {len(self._columns)}.")
        else:
            yield self._recipient(dict(zip(self._columns, fields, strict=True)), place)

    def _recipient(self, fields: dict[str, str], place: str) -> Read:
        to = next(fields.pop(name) for name in ADDRESS if name in fields)
        if any("\0" in value for value in (to, *fields.values())):
            return Fault(place, "holds the character U+0000.")
        locale = fields.pop("locale", "") or None
        variables: dict[str, Any] = {name: value for name, value in fields.items() if value}
        return Row(place, RecipientIn(to=to, variables=variables, locale=locale))


def _header(fields: list[str]) -> list[str]:
    names = [field.strip() for field in fields]
    if len(names) > MAX_COLUMNS or len(set(names)) != len(names):
        raise BadRequest(f"The header must name each column once, at most {MAX_COLUMNS} of them.", code="bad-header")
    if not set(ADDRESS) & set(names):
        raise BadRequest("The header must name a column `to`, the address.", code="bad-header")
    return names


READERS: dict[str, type[Lines]] = {"text/csv": Csv, "application/x-ndjson": JsonLines}
"""By media type."""
