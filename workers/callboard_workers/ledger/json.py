"""JSON that Postgres can store, whatever an actor reported."""

from __future__ import annotations

import re
from typing import Any

import msgspec

_encoder = msgspec.json.Encoder(enc_hook=str)
_REFUSED = re.compile("[\x00\ud800-\udfff]")


def storable(value: Any) -> str:
    """As JSON text; what jsonb refuses (NUL, lone surrogates) becomes U+FFFD, what JSON lacks becomes its text."""
    try:
        text = _encoder.encode(value).decode()
    except (UnicodeEncodeError, TypeError):
        return _encoder.encode(_clean(value)).decode()
    return _encoder.encode(_clean(value)).decode() if "\\u0000" in text else text


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return _REFUSED.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_clean(str(key)): _clean(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(each) for each in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    try:
        plain = msgspec.to_builtins(value, str_keys=True, enc_hook=str)
    except TypeError:  # a mapping in it whose keys JSON has no words for
        plain = str(value)
    return _clean(plain)
