"""Signatures of direct messages: who can write to Redis, and has no key, can make no worker run anything.

A message is signed over its task, id, eta, expires, tenant and a digest of its body. A doorbell has none: it carries
an id, and the row decides. A signed message that is pushed again runs again: `expires` says until when.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import b64decode
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HEADER = "signature"
SIGNED = ("task", "id", "eta", "expires", "tenant_id")
"""Headers that a signature covers; one that is missing counts as null."""


class Signer:
    """Signs with the first of `keys`, and takes the signatures of all: a new key is put in front of the old one."""

    def __init__(self, keys: Sequence[str]) -> None:
        if not keys:
            raise ValueError("a Signer needs a key")
        self._keys = tuple(key.encode() for key in keys)

    def __repr__(self) -> str:
        return f"Signer({len(self._keys)} keys)"

    def sign(self, headers: Mapping[str, Any], body: bytes) -> str:
        """The signature of a message; `body` is its JSON, before any base64."""
        return _signature(self._keys[0], _text(headers, body))

    def accepts(self, headers: Mapping[str, Any], body: bytes) -> bool:
        """Whether a message bears a signature by one of the keys."""
        given = headers.get(HEADER)
        if not isinstance(given, str) or not given.isascii():
            return False
        text = _text(headers, body)
        return any(hmac.compare_digest(given, _signature(key, text)) for key in self._keys)


def body_bytes(payload: Mapping[str, Any], properties: Mapping[str, Any]) -> bytes:
    """The JSON of a message's body as it is on the wire. Raises ValueError for what is not base64."""
    text: str = payload["body"]
    return b64decode(text, validate=True) if properties.get("body_encoding") == "base64" else text.encode()


def _text(headers: Mapping[str, Any], body: bytes) -> bytes:
    parts = [headers.get(name) for name in SIGNED]
    return json.dumps([*parts, hashlib.sha256(body).hexdigest()], separators=(",", ":")).encode()


def _signature(key: bytes, text: bytes) -> str:
    return hmac.new(key, text, hashlib.sha256).hexdigest()
