"""Names everything that keeps plain values from being of a type: msgspec alone stops at the first fault. Pure."""

import functools
import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Protocol, get_args, get_origin, get_type_hints

import msgspec

from service.core.errors import Fault

PATH = re.compile(r" - at `(key` in `)?\$(.*)`$", re.DOTALL)
MAX_JSON = 64 * 1024  # bytes of a JSON object that is stored as it was given
MAX_FAULTS = 100  # that one answer names
MAX_STEP = (
    200  # characters of a name in a pointer, and MAX_MESSAGE of a sentence: a response does not repeat its request
)
MAX_MESSAGE = 500
STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")

LOCALE = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8}){0,3}")
"""A language tag as BCP 47 writes it, `de-AT`, or as POSIX does, `de_AT`: they mean the same."""
"""A language tag such as `de`, `pt-BR` or `de_AT`."""


def faults(plain: Any, kind: Any, pointer: str = "") -> Iterator[Fault]:
    """Name everything in `plain` (builtins) that keeps it from being a `kind`, each with its JSON pointer."""
    inner = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if isinstance(inner, type) and issubclass(inner, msgspec.Struct) and isinstance(plain, dict):
        yield from _struct_faults(plain, inner, pointer)
    elif (found := _only_struct(inner, plain)) is not None:
        yield from faults(plain, found, pointer)
    elif get_origin(inner) in (list, tuple, set, frozenset) and isinstance(plain, list):
        yield from _list_faults(plain, kind, get_args(inner)[0] if get_args(inner) else Any, pointer)
    else:
        yield from _whole_faults(plain, kind, pointer)


def _struct_faults(plain: dict[str, Any], kind: type[msgspec.Struct], pointer: str) -> Iterator[Fault]:
    hints = _hints(kind)
    known = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    before = 0
    for name, field in known.items():
        if name not in plain:
            if field.required:
                before += 1
                yield Fault(step(pointer, name), "This field is required.")
            continue
        for fault in faults(plain[name], hints[field.name], step(pointer, name)):
            before += 1
            yield fault
    if kind.__struct_config__.forbid_unknown_fields:
        tag = kind.__struct_config__.tag_field
        for name in plain:
            if name not in known and name != tag:
                before += 1
                yield Fault(step(pointer, name), "This field is unknown.")
    if not before:
        yield from _whole_faults(plain, kind, pointer)


def _list_faults(plain: list[Any], kind: Any, item: Any, pointer: str) -> Iterator[Fault]:
    before = 0
    for index, value in enumerate(plain):
        for fault in faults(value, item, step(pointer, str(index))):
            before += 1
            yield fault
    if not before:
        yield from _whole_faults(plain, kind, pointer)


def _whole_faults(plain: Any, kind: Any, pointer: str) -> Iterator[Fault]:
    try:
        msgspec.convert(plain, kind, strict=True, str_keys=True)
    except msgspec.ValidationError as error:
        yield _fault(str(error), pointer)
    except UnicodeEncodeError:
        yield Fault(pointer, "The text is not valid Unicode.")


def _fault(message: str, pointer: str) -> Fault:
    """Turn msgspec's message, which ends in a path such as ``$.a[0]``, into a pointer and a sentence."""
    found = PATH.search(message)
    if found is None:
        return Fault(pointer, _sentence(message))
    for name, index in STEP.findall(found[2]):
        pointer = step(pointer, name or index) if index != "..." else pointer
    return Fault(pointer, _sentence(message[: found.start()]))


def _sentence(message: str) -> str:
    return message[:MAX_MESSAGE].replace("`", "'").rstrip(".") + "."


def step(pointer: str, name: str) -> str:
    """Go one step deeper with a JSON pointer (RFC 6901); a name of more than MAX_STEP characters is cut."""
    if len(name) > MAX_STEP:
        name = f"{name[:MAX_STEP]}…"
    return f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"


def _only_struct(kind: Any, plain: Any) -> Any:
    """Find the one struct that a union such as ``Template | None`` offers for an object, else None."""
    options = [option for option in get_args(kind) if isinstance(option, type) and issubclass(option, msgspec.Struct)]
    if isinstance(plain, dict) and len(options) == 1 and get_origin(kind) not in (list, tuple, set, frozenset, dict):
        return options[0]
    if isinstance(plain, list) and not options:
        lists = [option for option in get_args(kind) if get_origin(option) is list]
        return lists[0] if len(lists) == 1 and get_origin(kind) not in (list, tuple, dict) else None
    return None


@functools.cache
def _hints(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


class FieldFault(Protocol):
    """One thing wrong with a part of an email, as `service.mail` reports it: `where` is a path without a pointer."""

    @property
    def where(self) -> str: ...

    @property
    def message(self) -> str: ...


def pointed(prefix: str, faults: Iterable[FieldFault]) -> Iterator[Fault]:
    """Give the faults that `service.mail` found a JSON pointer below `prefix`."""
    for fault in faults:
        steps = (step.replace("~", "~0") for step in fault.where.split("/")) if fault.where else ()
        yield Fault("/".join((prefix, *steps)), f"{fault.message}.")


def json_faults(value: dict[str, Any], pointer: str) -> Iterator[Fault]:
    """What keeps a JSON object from being stored: too many bytes, a NUL, a number without end."""
    text = msgspec.json.encode(value)
    if len(text) > MAX_JSON:
        yield Fault(pointer, f"is {len(text):,} bytes as JSON; at most {MAX_JSON:,} are kept.")
    if rb"\u0000" in text and _holds_nul(value):
        yield Fault(pointer, "holds the character U+0000; remove it.")


def _holds_nul(value: Any) -> bool:
    if isinstance(value, dict):
        return any("\0" in name or _holds_nul(item) for name, item in value.items())
    if isinstance(value, list):
        return any(map(_holds_nul, value))
    return isinstance(value, str) and "\0" in value
