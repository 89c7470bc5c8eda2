"""Takes users, followers and members from the rows of a file, as it comes in, some hundreds in each transaction.

A row sets or lets in whoever it names, so a file that broke off is sent again from its beginning: what is there
already stays as it is.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec

from service.core.errors import Fault, Invalid
from service.users.identifiers import ID, ID_RULE
from service.users.repository import user_values
from service.users.schemas import Imported, NamedUser, UserId
from service.web.row_format import Csv, JsonLines, Lines, Read

CHUNK = 500
"""Rows of one transaction."""
TOLD = 100
"""Faults that are told."""
OWN = ("id", "email", "locale", "timezone")

Readers = dict[str, Callable[[], Lines]]
Store = Callable[[list[Any]], Awaitable[int]]


def user(fields: dict[str, str]) -> NamedUser:
    """Read a row of CSV: a column that is none of a user's own is an attribute, an empty field is not given."""
    given = {name: value for name, value in fields.items() if value}
    own = {name: given.pop(name) for name in OWN if name in given}
    return NamedUser(**{"id": "", **own}, attributes=given)


USERS: Readers = {
    "text/csv": lambda: Csv(("id",), user, OWN),
    "application/x-ndjson": lambda: JsonLines(NamedUser),
}
IDS: Readers = {
    "text/csv": lambda: Csv(("id",), lambda fields: UserId(id=fields["id"])),
    "application/x-ndjson": lambda: JsonLines(UserId),
}


async def take(rows: AsyncIterator[Read], read: Callable[[Any, str], Any], store: Store) -> Imported:
    """Store what `read` makes of the rows, chunk by chunk, of two with one id the last; tell what is faulty by line."""
    done = Imported()
    chunk: dict[str, Any] = {}
    async for row in rows:
        done.rows += 1
        faults = row if isinstance(row, list) else []
        if not isinstance(row, list):
            try:
                chunk[row.value.id] = read(row.value, row.place)
            except Invalid as error:
                faults = list(error.errors)
        done.refused += bool(faults)
        done.errors = [*done.errors, *faults][:TOLD]
        if len(chunk) >= CHUNK:
            done.changed += await store(list(chunk.values()))
            chunk = {}
    if chunk:
        done.changed += await store(list(chunk.values()))
    return done


def user_of(given: NamedUser, place: str) -> dict[str, Any]:
    """Read a user. Raises Invalid."""
    return user_values(given, id_of_row(given, place), place)


def id_of_row(given: msgspec.Struct, place: str) -> str:
    """Read the id of a row. Raises Invalid."""
    id: str = given.id  # type: ignore[attr-defined]  # both kinds of rows have one
    if ID.fullmatch(id) is None:
        raise Invalid([Fault(f"{place}/id", ID_RULE)])
    return id
