"""The text of an API key: `cb_live_` or `cb_test_`, 32 random characters, and a checksum of 6. Pure."""

import hashlib
import hmac
import re
import secrets
import zlib
from typing import Literal

Mode = Literal["live", "test"]

DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
RANDOM = 32  # characters: 190 bits
CHECK = 6
SHAPE = re.compile(rf"cb_(live|test)_[0-9A-Za-z]{{{RANDOM}}}[0-9A-Za-z]{{{CHECK}}}")


def new_key(mode: Mode) -> str:
    """Make a key."""
    body = f"cb_{mode}_" + "".join(secrets.choice(DIGITS) for _ in range(RANDOM))
    return body + checksum(body)


def checksum(body: str) -> str:
    """Compute the last six characters of a key: its CRC-32 in base 62. It finds typing errors, it proves nothing."""
    number, text = zlib.crc32(body.encode()), ""
    for _ in range(CHECK):
        number, digit = divmod(number, len(DIGITS))
        text = DIGITS[digit] + text
    return text


def is_whole(key: str) -> bool:
    """Tell whether `key` has the shape and the checksum of a key, without a look at the database."""
    return (
        len(key) < 64 and SHAPE.fullmatch(key) is not None and hmac.compare_digest(key[-CHECK:], checksum(key[:-CHECK]))
    )


def digest(key: str) -> bytes:
    """Hash a key as it is stored. A key has 190 random bits, so a fast hash is enough."""
    return hashlib.sha256(key.encode()).digest()


def prefix(key: str) -> str:
    """Return the start of a key that may be shown: `cb_live_Ab3f`."""
    return key[:12]
