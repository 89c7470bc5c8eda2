"""Reads the words that callers choose: ids of users, topics, organizations; categories and types; locales, zones."""

import functools
import re
import zoneinfo
from collections.abc import Iterable, Iterator

from service.core.errors import Fault, Invalid, NotFound
from service.core.validation import LOCALE

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+|~=-]{0,127}")
ID_RULE = "1 to 128 of A-Z a-z 0-9 . _ : @ + | ~ = - are expected, a letter or digit first."
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
WORD_RULE = "1 to 64 of A-Z a-z 0-9 . _ : - are expected, a letter or digit first."
LOCALE_RULE = "a language tag is expected, such as de or pt-BR."
FEW = 100  # faults named of one list


def id_of(given: str, pointer: str) -> str:
    """Read an id that stands in the path of a route that may make what it names. Raises Invalid."""
    if found := list(id_faults(given, pointer)):
        raise Invalid(found)
    return given


def id_faults(given: str, pointer: str) -> Iterator[Fault]:
    """What is wrong with an id."""
    if ID.fullmatch(given) is None:
        yield Fault(pointer, ID_RULE)


def ids_faults(given: Iterable[str], pointer: str, most: int) -> Iterator[Fault]:
    """What is wrong with a list of ids: its length, and the first faults within."""
    ids = list(given)
    if len(ids) > most:
        yield Fault(pointer, f"{len(ids):,} are given; at most {most:,} are taken.")
    wrong = (index for index, id in enumerate(ids[:most]) if ID.fullmatch(id) is None)
    for _, index in zip(range(FEW), wrong, strict=False):
        yield Fault(f"{pointer}/{index}", ID_RULE)


def word_faults(given: str | None, pointer: str) -> Iterator[Fault]:
    """What is wrong with a category or a type."""
    if given is not None and WORD.fullmatch(given) is None:
        yield Fault(pointer, WORD_RULE)


def locale_faults(given: str | None, pointer: str) -> Iterator[Fault]:
    """What is wrong with a locale."""
    if given is not None and LOCALE.fullmatch(given) is None:
        yield Fault(pointer, LOCALE_RULE)


def timezone_faults(given: str, pointer: str) -> Iterator[Fault]:
    """What is wrong with a time zone."""
    if given not in _zones():
        yield Fault(pointer, "a time zone of the IANA database is expected, such as Europe/Berlin.")


def unknown_user() -> NotFound:
    """Make the 404 of a user that is not there, or is another tenant's."""
    return NotFound("There is no such user: PUT it first.", code="unknown-user")


@functools.cache
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones() - {"localtime", "posixrules", "Factory"})
