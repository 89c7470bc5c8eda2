"""The keys that sign: made here, published in DNS, kept sealed."""

import secrets
from base64 import b64encode
from typing import cast
from uuid import UUID

import msgspec
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

BITS = 2048
"""RFC 8301 advises it; a longer public key no longer fits one TXT string of many DNS hosts."""


class Pair(msgspec.Struct, frozen=True):
    """A new key: the private half as PKCS #8, the public half as DNS has it (base64 of SubjectPublicKeyInfo)."""

    private: bytes
    public: str


def make() -> Pair:
    """Make a key: some 100 ms, in a thread."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=BITS)
    private = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Pair(private, b64encode(public).decode())


def read(private: bytes) -> rsa.RSAPrivateKey:
    """Read the private half of a key that `make` made."""
    return cast("rsa.RSAPrivateKey", load_der_private_key(private, None))


def token() -> str:
    """What a tenant publishes to show that a domain is theirs."""
    return secrets.token_hex(16)


def about(id: UUID) -> bytes:
    """What a sealed key is sealed for: its sender, and no other."""
    return b"senders.private_key:" + id.bytes
