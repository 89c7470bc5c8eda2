"""Tags that prove that a report is about an email of ours: in its return path (VERP) and its envelope id (RFC 3461).

A tag is the email's id and a MAC by SECRET_KEY (or one of SECRET_KEYS_OLD), as 40 small letters and digits, so that it
survives servers that change the case of an address. Who knows it has seen the envelope of that SMTP transaction:

- of a transaction with one recipient the MAC binds tenant, email and recipient: a report may speak for that recipient;
- of one with several, each of them finds the same return path in its copy, so the MAC binds tenant and email only. It
  proves that the server accepted the email, and nothing about a recipient. There the server is also given an ORCPT per
  recipient, `local+MAC@domain`, which no other recipient sees; a report that returns it speaks for that recipient.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from uuid import UUID

import msgspec

from service.mail.address_text import canonical
from service.settings import Settings

MAC = 9  # bytes
LENGTH = 40  # characters of a tag: 25 bytes in base 32
MOST = 10  # tags of one report that are looked at

_LABEL = b"report-tag\0"
_XTEXT = re.compile(r"\+([0-9A-F]{2})")


class Trust(StrEnum):
    """How far a report is believed."""

    CALLER = "caller"
    """A caller of the API states it, with a key that may."""
    RECIPIENT = "recipient"
    """It carries a MAC that binds the email and this recipient."""
    EMAIL = "email"
    """It carries a MAC that binds the email: the server accepted it; what it says of a recipient is not proved."""
    NONE = "none"
    """It names the email, as anyone can who has received it: recorded, and nothing else."""

    @property
    def is_full(self) -> bool:
        """Whether the report may suppress its recipient and settle the email."""
        return self in (Trust.CALLER, Trust.RECIPIENT)


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What a tag proves: of which email, and of which recipient where `trust` is RECIPIENT."""

    email_id: UUID
    trust: Trust
    address: str | None = None


class Tags:
    """Makes tags and verifies them; `keys`: the first one signs, each is believed."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = [key.encode() for key in keys]

    @classmethod
    def of(cls, settings: Settings) -> "Tags":
        """Make what the settings describe."""
        return cls([settings.secret_key, *settings.secret_keys_old])

    def tag(self, tenant_id: UUID, email_id: UUID, recipients: Sequence[str]) -> str:
        """Return the tag of one SMTP transaction with these recipients."""
        about = recipients[0] if len(recipients) == 1 else None
        return _text(email_id.bytes + _mac(self._keys[0], tenant_id, email_id, about))

    def originals(self, tenant_id: UUID, email_id: UUID, recipients: Sequence[str]) -> dict[str, str]:
        """Return the ORCPT address of each recipient of a transaction with several.

        Left out are those whose local part has no room for a MAC, or is quoted, or not ASCII.
        """
        if len(recipients) < 2:
            return {}
        found = {each: _original(self._keys[0], tenant_id, email_id, each) for each in recipients}
        return {recipient: original for recipient, original in found.items() if original}

    def proof(
        self, tenant_id: UUID, names: Sequence[str], recipient: str, emails: Mapping[UUID, Sequence[str]]
    ) -> Proof | None:
        """Return the best proof among the names of a report.

        `recipient`: the original recipient that the report names; `emails`: the recipients of each email in question.
        """
        best: Proof | None = None
        tags = dict.fromkeys(raw for raw in map(_bytes, names) if raw is not None)
        for raw in list(tags)[:MOST]:
            email_id = UUID(bytes=raw[:-MAC])
            found = self._proof(tenant_id, email_id, raw[-MAC:], recipient, emails.get(email_id, ()))
            if found is not None and found.trust is Trust.RECIPIENT:
                return found
            best = best or found
        return best

    def _proof(
        self, tenant_id: UUID, email_id: UUID, mac: bytes, reported: str, recipients: Sequence[str]
    ) -> Proof | None:
        for key in self._keys:
            for each in recipients:
                if hmac.compare_digest(mac, _mac(key, tenant_id, email_id, each)):
                    return Proof(email_id=email_id, trust=Trust.RECIPIENT, address=each)
            if recipients and hmac.compare_digest(mac, _mac(key, tenant_id, email_id, None)):
                address = self._named(key, tenant_id, email_id, reported, recipients)
                trust = Trust.RECIPIENT if address else Trust.EMAIL
                return Proof(email_id=email_id, trust=trust, address=address)
        return None

    def _named(
        self, key: bytes, tenant_id: UUID, email_id: UUID, reported: str, recipients: Sequence[str]
    ) -> str | None:
        """The recipient whose ORCPT the report returns."""
        spellings = {each.lower().encode() for each in (reported, unquote(reported))}
        for address in recipients:
            original = _original(key, tenant_id, email_id, address).lower().encode()
            if original and any(hmac.compare_digest(original, each) for each in spellings):
                return address
        return None


def email_of(name: str) -> UUID | None:
    """Return the id in a tag, whether or not its MAC is good; None for what is no tag."""
    raw = _bytes(name)
    return None if raw is None else UUID(bytes=raw[:-MAC])


def unquote(xtext: str) -> str:
    """Decode xtext (RFC 3461, section 4)."""
    return _XTEXT.sub(lambda found: chr(int(found[1], 16)), xtext)


def _mac(key: bytes, tenant_id: UUID, email_id: UUID, recipient: str | None) -> bytes:
    about = b"email\0" if recipient is None else b"recipient\0" + canonical(recipient).encode()
    return hmac.new(key, _LABEL + tenant_id.bytes + email_id.bytes + about, hashlib.sha256).digest()[:MAC]


def _original(key: bytes, tenant_id: UUID, email_id: UUID, recipient: str) -> str:
    local, _, domain = recipient.rpartition("@")
    original = f"{local}+{_text(_mac(key, tenant_id, email_id, recipient))}@{domain}"
    fits = len(original) - len(domain) - 1 <= 64
    return original if fits and original.isascii() and '"' not in local else ""


def _text(raw: bytes) -> str:
    return base64.b32encode(raw).decode().rstrip("=").lower()


def _bytes(name: str) -> bytes | None:
    if len(name) != LENGTH or not name.isascii():
        return None
    try:
        return base64.b32decode(name.upper())
    except (binascii.Error, ValueError):
        return None
