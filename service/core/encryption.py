"""Secrets of others that we must be able to read again: sealed with AES-256-GCM before they reach Postgres.

The key is made by HKDF (RFC 5869) from ENCRYPTION_KEYS, or else from SECRET_KEY. To change it, put the new one first
and keep the old ones behind it: the first seals, all of them open.
"""

import hashlib
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from service.core.errors import ServiceError
from service.settings import Settings

NONCE = 12  # bytes
MARK = 4  # bytes that tell which key sealed


class CannotSeal(ServiceError):
    """There is no key that outlives this process, so nothing sealed with it could be read again."""

    status, code, title = 503, "no-encryption-key", "No encryption key"

    def __init__(self) -> None:
        super().__init__(
            "Secrets cannot be kept: set SECRET_KEY or ENCRYPTION_KEYS, the same in every process"
            " (`openssl rand -hex 32` makes one), and restart."
        )


class CannotOpen(ServiceError):
    """None of the keys opens this: it was sealed with another one, or for something else."""

    status, code, title = 503, "encryption-key-unknown", "Encryption key unknown"

    def __init__(self) -> None:
        super().__init__(
            "A stored secret cannot be read: it was sealed with a key that is not among ENCRYPTION_KEYS. Add that key"
            " at the end of the list, or store the secret anew."
        )


class Sealer:
    """Seals and opens; `keys` are texts of any length, the first of which seals."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._ciphers = {_mark(key): AESGCM(_derive(key)) for key in keys}

    @classmethod
    def of(cls, settings: Settings) -> "Sealer":
        """Make the sealer that the settings ask for; without a lasting key it refuses to seal."""
        lasting = () if settings.secret_key_is_made_up else (settings.secret_key,)
        return cls(settings.encryption_keys or lasting)

    def seal(self, plain: bytes, about: bytes) -> bytes:
        """Seal `plain`; `about` names what it belongs to, and it opens for nothing else. Raises CannotSeal."""
        if not self._ciphers:
            raise CannotSeal
        mark, cipher = next(iter(self._ciphers.items()))
        nonce = secrets.token_bytes(NONCE)
        return mark + nonce + cipher.encrypt(nonce, plain, about)

    def open(self, sealed: bytes, about: bytes) -> bytes:
        """Open what `seal` made. Raises CannotOpen."""
        mark, nonce, text = sealed[:MARK], sealed[MARK : MARK + NONCE], sealed[MARK + NONCE :]
        try:
            return self._ciphers[mark].decrypt(nonce, text, about)
        except (KeyError, InvalidTag, ValueError):
            raise CannotOpen from None


def _mark(key: str) -> bytes:
    return hashlib.sha256(b"callboard key mark\0" + key.encode()).digest()[:MARK]


def _derive(key: str) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=b"callboard sealing").derive(key.encode())
