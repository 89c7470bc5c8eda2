"""How the values of settings are spelled: each function reads one kind, or raises ValueError saying what it expects."""

import re
from collections.abc import Callable
from urllib.parse import urlsplit

OTHER_BROKERS = (
    "amqp",
    "amqps",
    "pyamqp",
    "librabbitmq",
    "sqs",
    "confluentkafka",
    "kafka",
    "gcpubsub",
    "azureservicebus",
)


def text(value: str) -> str:
    """Take the value as it stands."""
    return value


def count(low: int, high: int) -> Callable[[str], int]:
    """Parse a whole number between `low` and `high`."""

    def parse(value: str) -> int:
        if not re.fullmatch(r"\d{1,18}", value) or not low <= int(value) <= high:
            raise ValueError(f"a whole number from {low} to {high} is expected")
        return int(value)

    return parse


def seconds(low: float, high: float) -> Callable[[str], float]:
    """Parse a duration in seconds between `low` and `high`."""

    def parse(value: str) -> float:
        if not re.fullmatch(r"\d{1,12}(\.\d{1,6})?", value) or not low <= float(value) <= high:
            raise ValueError(f"seconds from {_plain(low)} to {_plain(high)} are expected")
        return float(value)

    return parse


def _plain(number: float) -> str:
    return f"{number:,.6f}".rstrip("0").rstrip(".")


def flag(value: str) -> bool:
    """Parse true/false, yes/no, on/off, 1/0."""
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if value.lower() not in words:
        raise ValueError("true or false is expected")
    return words[value.lower()]


def one_of(*words: str) -> Callable[[str], str]:
    """Parse one of `words`, in any case."""

    def parse(value: str) -> str:
        found = {word.lower(): word for word in words}.get(value.lower())
        if found is None:
            raise ValueError(f"one of {', '.join(words)} is expected")
        return found

    return parse


def url(*schemes: str) -> Callable[[str], str]:
    """Parse a URL whose scheme is one of `schemes`."""

    def parse(value: str) -> str:
        if urlsplit(value).scheme not in schemes:
            raise ValueError(f"a URL that starts with {' or '.join(f'{scheme}://' for scheme in schemes)} is expected")
        return value

    return parse


def broker(*schemes: str) -> Callable[[str], str]:
    """Parse a URL of one of `schemes`; who gives another broker's is told why there is none."""

    def parse(value: str) -> str:
        scheme = urlsplit(value).scheme
        if scheme in OTHER_BROKERS:
            raise ValueError(
                f"{scheme}:// is another broker; doorbells, fetching and live streams are made for Redis and Valkey: "
                "give it a redis:// URL (docs/operations.md, Other brokers)"
            )
        return url(*schemes)(value)

    return parse


def words(value: str) -> tuple[str, ...]:
    """Parse a list separated by commas."""
    return tuple(word.strip() for word in value.split(",") if word.strip())


def ports(value: str) -> tuple[int, ...]:
    """Parse port numbers separated by commas."""
    return tuple(count(1, 65535)(word) for word in words(value))


def keys(value: str) -> tuple[str, ...]:
    """Parse secrets of at least 16 characters, separated by commas."""
    return tuple(map(secret, words(value)))


def notifications(value: str) -> tuple[str, ...]:
    """Parse what a mail server is to report (RFC 3461): FAILURE, DELAY, SUCCESS; `none` for nothing."""
    if value.lower() == "none":
        return ()
    return tuple(one_of("FAILURE", "DELAY", "SUCCESS")(word) for word in words(value))


def mailbox(value: str) -> str:
    """Parse one plain `local@domain` whose local part leaves room for a tag."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,23}@[A-Za-z0-9.-]{1,200}", value):
        raise ValueError(
            "one plain address is expected, such as bounces@mail.example.org, with at most 23 characters before the @"
        )
    return value


def sender(value: str) -> str:
    """Parse what looks like one `local@domain` or `Name <local@domain>`; `service.mail.addresses` looks closer."""
    one = r'[^\s<>(),:;"\\@]+@[^\s<>(),;"\\@]+'
    if not re.fullmatch(rf'{one}|(?:"(?:[^"\\]|\\.)*"|[^<>"(),:;@\[\]\\\t]*) *<{one}>', value):
        raise ValueError("one address is expected, such as Your app <hello@example.org>")
    return value


class MadeUp(str):
    """A secret that this process made up for want of one: no other process knows it."""

    __slots__ = ()


def secret(value: str) -> str:
    """Parse a secret of at least 16 characters."""
    if len(value) < 16:
        raise ValueError("at least 16 characters are expected, such as the output of `openssl rand -hex 32`")
    return value
