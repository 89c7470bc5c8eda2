"""Signatures as Standard Webhooks has them: https://github.com/standard-webhooks/standard-webhooks. Pure.

HMAC-SHA256 over `{webhook-id}.{webhook-timestamp}.{body}` with the bytes behind `whsec_`; the header
`webhook-signature` is `v1,` and the base64 of it, once for each secret that is good.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence

PREFIX = "whsec_"
RANDOM = 32  # bytes
LENGTHS = range(24, 65)  # bytes that the specification allows


def new_secret() -> str:
    """Make a secret."""
    return PREFIX + base64.b64encode(secrets.token_bytes(RANDOM)).decode()


def read_secret(text: str) -> bytes:
    """Read the bytes of a secret. Raises ValueError that says what is expected."""
    try:
        found = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if not text.startswith(PREFIX) or len(found) not in LENGTHS:
        raise ValueError(f"`{PREFIX}` and the base64 of 24 to 64 random bytes are expected; leave it out to get one.")
    return found


def signature(secret: str, id: str, timestamp: int, body: bytes) -> str:
    """Sign a body with one secret."""
    signed = b"%s.%d.%s" % (id.encode(), timestamp, body)
    return "v1," + base64.b64encode(hmac.new(read_secret(secret), signed, hashlib.sha256).digest()).decode()


def headers(good: Sequence[str], id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Make the three headers of a call; `good` are the secrets that hold, the newest first."""
    return {
        "webhook-id": id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signature(secret, id, timestamp, body) for secret in good),
    }
