"""Checks the names of new things and derives the words that their code uses. Pure."""

import builtins
import keyword
import re
from dataclasses import dataclass

from sqlalchemy.dialects.postgresql.base import RESERVED_WORDS

SNAKE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
LONGEST = 20  # characters; with its date before it, Alembic keeps 32 of a revision

PLANNED = {
    "notifications": "users, topics and feeds",
    "jobs": "records an app polls",
    "webhooks": "signed callbacks",
    "console": "the web page",
}
"""Rooms of the house that have their place, whether they are built yet or not."""

USED = """
actor answer backoff base body celery cursor data dead done engine error event index limit message model models page
pager policy queue registry request requests response router routers runtime schema service session story table task
template templates tenant tests text uuid workbench worker workers
"""
SPOKEN_FOR = frozenset(USED.split())
"""Words that the code of every slice uses for something else."""


class Refused(Exception):
    """What was asked for cannot be made; `faults` says everything that stands in the way."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


@dataclass(frozen=True)
class Words:
    """The words of a slice: `notes`, its records `note`, their class `Note`, their ids `no_…`."""

    slice: str
    record: str
    prefix: str

    @property
    def model(self) -> str:
        """The class of a record."""
        return "".join(part.capitalize() for part in self.record.split("_"))

    @property
    def spoken(self) -> str:
        """The record in a sentence."""
        return self.record.replace("_", " ")

    @property
    def a(self) -> str:
        """The record in a sentence, with its article."""
        return f"{'an' if self.record[0] in 'aeiou' else 'a'} {self.spoken}"


def faults(name: str, what: str) -> list[str]:
    """Everything that is wrong with `name` by itself; `what` says whose name it is, such as `the slice`."""
    found = []
    if not SNAKE.fullmatch(name):
        found.append(f"{what} {name!r} is not snake_case: small letters, digits and single underscores, a letter first")
    if len(name) > LONGEST:
        found.append(f"{what} {name!r} has {len(name)} characters: {LONGEST} at most")
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        found.append(f"{what} {name!r} is a keyword of Python")
    elif hasattr(builtins, name):
        found.append(f"{what} {name!r} is a builtin of Python")
    return found


def record_faults(name: str, what: str) -> list[str]:
    """As `faults`, for a name that tables and classes are made of too."""
    found = faults(name, what)
    if name in RESERVED_WORDS:
        found.append(f"{what} {name!r} is a reserved word of SQL")
    if name in SPOKEN_FOR:
        found.append(f"{what} {name!r} is spoken for: the code of every slice uses it for something else")
    return found


def singular(name: str) -> str:
    """Guess what one of them is called: `notes` are each a `note`, `entries` an `entry`."""
    if name.endswith("ies") and len(name) > 4:
        return f"{name[:-3]}y"
    if name.endswith(("sses", "shes", "ches", "xes")):
        return name[:-2]
    return name[:-1] if name.endswith("s") and not name.endswith(("ss", "us", "is")) else f"{name}_record"


def prefix(record: str, taken: set[str]) -> str:
    """Choose the prefix of the records' ids: the first letters, as few as are free, but two."""
    letters = re.sub(r"[^a-z]", "", record)
    free = [letters[:count] for count in range(2, len(letters) + 1) if letters[:count] not in taken]
    return free[0] if free else f"{letters}x"
