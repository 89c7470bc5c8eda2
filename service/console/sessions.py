"""Who is signed in: a cookie that names an API key and is signed, and a token against forged forms.

The cookie holds no key. Each request checks that its row in `console_sessions` is there and that the key which it names
is still good: signing out deletes the row, so a copy of the cookie opens nothing afterwards.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
import struct
import time
from uuid import UUID, uuid4

import msgspec

COOKIE = "callboard_console"
LASTS = 12 * 3600  # seconds
PASS_LASTS = 7 * 86_400  # seconds that the link of `callboard up` is good
PATH = "/console"
NONCE = 12  # bytes
MAC = 20  # bytes
FORM = struct.Struct(f">16s16s16s16sQ{NONCE}s")


class Session(msgspec.Struct, frozen=True):
    """A session: its key and tenant, the tenant it acts for, when it ends (seconds since 1970), 12 random bytes."""

    id: UUID
    key_id: UUID
    tenant_id: UUID
    acting: UUID
    until: int
    nonce: bytes

    @classmethod
    def begin(cls, key_id: UUID, tenant_id: UUID, lasts: int = LASTS) -> "Session":
        """Begin a session."""
        return cls(uuid4(), key_id, tenant_id, tenant_id, int(time.time()) + lasts, secrets.token_bytes(NONCE))

    def acting_for(self, tenant_id: UUID) -> "Session":
        """The session from here on: for another tenant, with forms of its own, over at the same time."""
        return Session(self.id, self.key_id, self.tenant_id, tenant_id, self.until, secrets.token_bytes(NONCE))


def seal(secret: str, session: Session, purpose: str = "session") -> str:
    """Write a session as a cookie, or as a pass, is."""
    ids = session.id.bytes, session.key_id.bytes, session.tenant_id.bytes, session.acting.bytes
    body = FORM.pack(*ids, session.until, session.nonce)
    return base64.urlsafe_b64encode(_mac(secret, purpose, body) + body).decode().rstrip("=")


def unseal(secret: str, text: str, purpose: str = "session") -> Session | None:
    """Read a cookie or a pass; None for one that was changed, is over, or was made for something else."""
    try:
        raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError):
        return None
    if len(raw) != MAC + FORM.size or not hmac.compare_digest(raw[:MAC], _mac(secret, purpose, raw[MAC:])):
        return None
    *ids, until, nonce = FORM.unpack(raw[MAC:])
    id, key, tenant, acting = (UUID(bytes=each) for each in ids)
    return Session(id, key, tenant, acting, until, nonce) if until > time.time() else None


def form_token(secret: str, session: Session) -> str:
    """Make the token that every form of a session carries."""
    return _mac(secret, "form", session.nonce).hex()


def is_form_token(secret: str, session: Session, given: str) -> bool:
    """Tell whether a form came from a page of this session."""
    return hmac.compare_digest(form_token(secret, session).encode(), given.encode("utf-8", "replace"))


def cookie(value: str, *, secure: bool, lasts: int = LASTS) -> str:
    """Write the Set-Cookie header; an empty value takes the cookie away."""
    parts = [f"{COOKIE}={value}", f"Path={PATH}", f"Max-Age={lasts if value else 0}", "HttpOnly", "SameSite=Strict"]
    return "; ".join([*parts, "Secure"] if secure else parts)


def _mac(secret: str, purpose: str, body: bytes) -> bytes:
    return hmac.digest(secret.encode(), b"console\0" + purpose.encode() + b"\0" + body, hashlib.sha256)[:MAC]
