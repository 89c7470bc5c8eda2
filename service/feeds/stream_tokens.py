"""Stream tokens: what a browser may follow one user's feed with for some minutes. Pure.

A token is signed with SECRET_KEY and stored nowhere. It opens streams and nothing else; it may stand in an address,
because it is worth little and not for long.
"""

import base64
import binascii
import hashlib
import hmac
from typing import Literal
from uuid import UUID

import msgspec

LABEL = b"stream-token\0"
PREFIX = "st_"
MAC = 32  # bytes
LONGEST = 2_048  # characters


class Grant(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """Who may follow whose feed, and until when (a Unix time in seconds)."""

    tenant_id: UUID
    key_id: UUID
    mode: Literal["live", "test"]
    user_id: str
    expires: int


def make(secret: str, grant: Grant) -> str:
    """Write a token."""
    body = msgspec.json.encode(grant)
    return PREFIX + base64.urlsafe_b64encode(_mac(secret, body) + body).decode().rstrip("=")


def read(secret: str, token: str, now: float) -> Grant | None:
    """Read a token; None for one that is forged, cut or over."""
    if not token.startswith(PREFIX) or len(token) > LONGEST:
        return None
    text = token[len(PREFIX) :]
    try:
        raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError):
        return None
    if not hmac.compare_digest(raw[:MAC], _mac(secret, raw[MAC:])):
        return None
    grant = msgspec.json.decode(raw[MAC:], type=Grant)
    return grant if grant.expires > now else None


def _mac(secret: str, body: bytes) -> bytes:
    return hmac.new(secret.encode(), LABEL + body, hashlib.sha256).digest()
