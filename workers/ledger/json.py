"""JSON that Postgres can store, whatever an actor reported."""

from __future__ import annotations

from typing import Any

import msgspec

_encoder = msgspec.json.Encoder(enc_hook=str)


def storable(value: Any) -> str:
    """As JSON text; what jsonb refuses (NUL, lone surrogates) becomes U+FFFD, what JSON lacks becomes its text."""
    try:
        text = _encoder.encode(value).decode()
    except (UnicodeEncodeError, TypeError):
        return _encoder.encode(_clean(value)).decode()
    return _encoder.encode(_clean(value)).decode() if "\\u0000" in text else text


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_clean(str(key)): _clean(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(each) for each in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return _clean(str(value))
