"""Recipients from the rows of a file. Pure.

In CSV the column `to` (or `email`) is the address, `locale` the language; every other column is a variable, and an
empty field one that is not given. In NDJSON a row is `{"to": …, "variables": {…}, "locale": …}`.
"""

from collections.abc import Callable

from service.broadcasts.schemas import RecipientIn
from service.web.row_format import Csv, JsonLines, Lines

ADDRESS = ("to", "email")


def recipient(fields: dict[str, str]) -> RecipientIn:
    """Read the fields of one row, by column."""
    to = next(fields.pop(name) for name in ADDRESS if name in fields)
    locale = fields.pop("locale", "") or None
    return RecipientIn(to=to, variables={name: value for name, value in fields.items() if value}, locale=locale)


READERS: dict[str, Callable[[], Lines]] = {
    "text/csv": lambda: Csv(ADDRESS, recipient, ("locale",)),
    "application/x-ndjson": lambda: JsonLines(RecipientIn),
}
"""By media type."""
