"""Reads a JSON body strictly, and names every fault of a bad one. Pure.

What it refuses, and how: 400 for what is not one JSON object in UTF-8 with finite numbers and distinct keys; 422 for a
readable object that breaks the rules of its type. msgspec alone stops at the first fault, lets the last of two equal
keys win, and reads NUL, which Postgres cannot store.
"""

import functools
import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NoReturn, TypeVar, cast

import msgspec

from service.core.errors import BadRequest, Fault, Invalid
from service.core.validation import MAX_FAULTS, faults, step

T = TypeVar("T")

MAX_DEPTH = 100  # objects and arrays inside one another
MAX_VALUES = 200_000  # commas and opening brackets of one body; a batch of 1,000 emails has 10,000 to 100,000
MAX_KEYS = 10_000  # of one object
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
PIECE_BYTES = 256 * 1024


class Body(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The base of a request's body: unknown fields are refused."""


def decode(body: bytes, kind: type[T]) -> T:
    """Decode `body` as `kind`, a msgspec struct. Raises BadRequest, or Invalid with every fault."""
    plain = read(body)
    try:
        value: T = _decoder(cast("Any", kind)).decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        _refuse(plain, kind)
    if b"\\u0000" in body:
        _refuse_nul(plain)
    return value


def read(body: bytes, max_values: int = MAX_VALUES) -> Any:
    """Read `body` as JSON of builtins, in time linear in its size. Raises BadRequest.

    `body` must be JSON that means one thing only, with at most `max_values` values.
    """
    if len(body) > max_values and count_values(body, max_values) > max_values:
        raise BadRequest(
            f"The body has more than {max_values:,} values: send them in several requests.", code="too-many-values"
        )
    if body[:2] in (b"\xff\xfe", b"\xfe\xff") or body[:3] == b"\xef\xbb\xbf" or body[:1] == b"\x00":
        raise BadRequest("The body must be UTF-8 without a byte order mark.", code="malformed-json")
    try:
        plain = _READER.decode(body.decode())
    except UnicodeDecodeError as error:
        raise BadRequest(f"The body is not UTF-8 (byte {error.start}).", code="malformed-json") from None
    except RecursionError:
        raise _too_deep() from None
    except json.JSONDecodeError as error:
        raise BadRequest(f"The body is not JSON: {error.msg} (character {error.pos}).", code="malformed-json") from None
    except ValueError as error:
        raise BadRequest(f"The body is not JSON: {error}.", code="malformed-json") from None
    if not isinstance(plain, dict):
        raise BadRequest("The body must be a JSON object.", code="malformed-json")
    if len(body) > 2 * MAX_DEPTH and not _is_shallow(plain):
        raise _too_deep()
    if (b"\\ud" in body or b"\\uD" in body) and SURROGATE.search(body):
        _refuse_lone_surrogates(body)
    return plain


def count_values(body: bytes, enough: int) -> int:
    """Count the commas and opening brackets of a JSON text, without those inside strings; stop above `enough`.

    It looks at the text piece by piece, so a thread that counts lets the event loop run in between.
    """
    starts = range(0, len(body), PIECE_BYTES)
    every = 0  # those inside strings included: rarely more than `enough`, and three times as fast to count
    for start in starts:
        every += sum(body.count(sign, start, start + PIECE_BYTES) for sign in (b",", b"[", b"{"))
        if every > enough:
            break
    else:
        return every
    count, is_inside, rest = 0, False, b""
    for start in starts:
        piece = rest + body[start : start + PIECE_BYTES]
        odd = (len(piece) - len(piece.rstrip(b"\\"))) % 2  # half of an escape
        piece, rest = piece[: len(piece) - odd], piece[len(piece) - odd :]
        signs = piece.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _OTHER)
        parts = signs.split(b'"')
        count += sum(map(len, parts[is_inside::2]))
        if count > enough:
            break
        is_inside ^= len(parts) % 2 == 0
    return count


def _is_shallow(plain: Any) -> bool:
    """Whether no value lies deeper than MAX_DEPTH; how deep Python itself reads differs from version to version."""
    level = [plain]
    for _ in range(MAX_DEPTH):
        level = [
            value
            for each in level
            for value in (each.values() if type(each) is dict else each)
            if type(value) is dict or type(value) is list
        ]
        if not level:
            return True
    return False


def _too_deep() -> BadRequest:
    return BadRequest(f"The body is nested too deeply: at most {MAX_DEPTH} levels.", code="malformed-json")


def decode_plain(plain: Any, kind: type[T], pointer: str = "") -> T | list[Fault]:
    """Decode one value that `read` returned, some part of a body, as `kind`; or name its faults below `pointer`."""
    try:
        value = msgspec.convert(plain, kind, strict=True, str_keys=True)
    except (msgspec.ValidationError, UnicodeEncodeError):
        named = list(islice(faults(plain, kind, pointer), MAX_FAULTS))
        return named or [Fault(pointer, "holds text or a number that cannot be stored.")]
    return [
        Fault(found, "The character U+0000 cannot be stored.") for found in islice(_nul(plain, pointer), 1)
    ] or value


def _refuse_lone_surrogates(body: bytes) -> None:
    try:
        msgspec.json.decode(body)
    except msgspec.DecodeError:
        raise BadRequest("The body holds half of a surrogate pair.", code="malformed-json") from None


def _refuse(plain: Any, kind: Any) -> NoReturn:
    named = list(islice(faults(plain, kind), MAX_FAULTS))
    if not named:  # only msgspec's own decoder refuses it
        raise BadRequest("The body holds text or a number that cannot be stored.", code="malformed-json")
    raise Invalid(named)


def _refuse_nul(plain: Any) -> None:
    named = [Fault(found, "The character U+0000 cannot be stored.") for found in islice(_nul(plain, ""), MAX_FAULTS)]
    if named:
        raise Invalid(named)


def _nul(plain: Any, pointer: str) -> Iterator[str]:
    return (functools.reduce(step, path, pointer) for path in _nul_paths(plain, []))


def _nul_paths(plain: Any, path: list[str]) -> Iterator[list[str]]:
    """Find every text with NUL. A path is joined only where there is one: keys may be long, and have many values."""
    if isinstance(plain, str):
        if "\0" in plain:
            yield path
    elif isinstance(plain, dict):
        for name, value in plain.items():
            if "\0" in name:
                yield path
            yield from _nul_paths(value, [*path, name])
    elif isinstance(plain, list):
        for index, value in enumerate(plain):
            yield from _nul_paths(value, [*path, str(index)])


@functools.cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind, strict=True)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_KEYS:
        raise ValueError(f"an object has more than {MAX_KEYS:,} keys")
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError(f"the key {_repeated(name for name, _ in pairs)[:60]!r} is there twice")
    return found


def _repeated(names: Iterable[str]) -> str:
    """Find the first of `names` that comes again: each name is looked at once."""
    seen = set[str]()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    raise LookupError("no name comes again")


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _integer(digits: str) -> int:
    number = int(digits) if len(digits) <= 20 else 1 << 64
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError("a whole number is out of the range of 64 bits")
    return number


def _number(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError("a number is out of range")
    return number


_OTHER = bytes(set(range(256)) - set(b'",[{'))
_READER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer, parse_float=_number)
