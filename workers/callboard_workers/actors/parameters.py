"""A function's parameters as a message carries them: plain JSON on the way out, typed again on the way in."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_type_hints
from uuid import UUID

import msgspec

from callboard_workers.errors import BadArguments, DeclarationError

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The function's resolved annotations; a name that exists only for the type checker is a DeclarationError."""
    try:
        return get_type_hints(function, include_extras=True)
    except NameError as error:
        fault = f"annotation {error.name!r} is unknown at run time: import it outside `if TYPE_CHECKING:`"
        raise DeclarationError(f"{function.__qualname__}: {fault}") from None


class Parameters:
    """What a message for a function must carry; `hidden` parameters are filled in by the worker."""

    def __init__(self, function: Callable[..., Any], hidden: Sequence[str] = ()) -> None:
        found = inspect.signature(function)
        types = hints(function)
        visible = [parameter for name, parameter in found.parameters.items() if name not in hidden]
        self.signature = found.replace(parameters=visible)
        self._types = {parameter.name: types.get(parameter.name, Any) for parameter in visible}
        positional = [parameter for parameter in visible if parameter.kind in _POSITIONAL]
        required_names = [p for p in visible if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
        self._plain: Any = None
        self._count = -1
        if not required_names and not any(p.kind is p.VAR_POSITIONAL for p in visible):
            # the usual message gives every positional parameter and nothing else: one conversion for all
            self._count = len(positional)
            types_in_order = tuple(self._types[p.name] for p in positional)
            self._plain = tuple.__class_getitem__(types_in_order)

    def encode(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Check a call against the signature and make its values plain JSON ones; TypeError names what does not fit."""
        if not kwargs and len(args) == self._count:
            return tuple(map(_plain, args)), {}
        self.signature.bind(*args, **kwargs)
        return tuple(map(_plain, args)), {name: _plain(value) for name, value in kwargs.items()}

    def encode_partly(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """As `encode`, for a call that lacks its last positional argument as yet."""
        if not self.takes(*args, None, **kwargs):
            self.signature.bind(*args, **kwargs)
        return tuple(map(_plain, args)), {name: _plain(value) for name, value in kwargs.items()}

    def takes(self, *args: Any, **kwargs: Any) -> bool:
        """Whether the function can be called so, whatever the types."""
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError:
            return False
        return True

    def decode(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Turn plain values back into the annotated types; BadArguments names every one that does not fit."""
        if not kwargs and len(args) == self._count:
            try:
                return msgspec.convert(args, self._plain, str_keys=True), {}
            except msgspec.ValidationError:
                pass  # once more, one by one, for an answer that names them all
        return self._decode_each(args, kwargs)

    def _decode_each(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise BadArguments(str(error)) from None
        faults: list[str] = []
        for name, value in bound.arguments.items():
            try:
                bound.arguments[name] = self._typed(name, value)
            except msgspec.ValidationError as error:
                faults.append(f"{name}: {error}")
        if faults:
            raise BadArguments("; ".join(faults))
        return bound.args, bound.kwargs

    def _typed(self, name: str, value: Any) -> Any:
        kind = self.signature.parameters[name].kind
        wanted = self._types[name]
        if kind is inspect.Parameter.VAR_POSITIONAL:
            wanted = tuple.__class_getitem__((wanted, ...))
        elif kind is inspect.Parameter.VAR_KEYWORD:
            wanted = dict.__class_getitem__((str, wanted))
        return msgspec.convert(value, wanted, str_keys=True)


_TEXTS = (str, UUID)


def _plain(value: Any) -> Any:
    if isinstance(value, _TEXTS):
        return str(value)
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{value} has no JSON form: a message cannot carry it")
    return msgspec.to_builtins(value, str_keys=True)
