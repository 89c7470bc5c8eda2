"""Links to unsubscribe, each for one reader of one kind of mail, signed so that nobody makes up another's.

The token is itsdangerous': URL-safe text and an HMAC-SHA256 by SECRET_KEY. It does not end: a reader may say no to
a mail of years ago. Links made with a key of SECRET_KEYS_OLD stay good.
"""

import hashlib
from typing import Any
from uuid import UUID

import msgspec
from itsdangerous import BadSignature, URLSafeSerializer

from callboard_workers.runtime import Runtime
from service.settings import Settings

MAX_TOKEN = 2000  # characters; a good one has some 200
SALT = "callboard.unsubscribe"


class Reader(msgspec.Struct, frozen=True, array_like=True):
    """Who says no to what: one address of one tenant, and a topic; the mail that holds the link."""

    tenant_id: UUID
    mode: str
    address: str
    topic: str
    email_id: UUID


class Links:
    """Makes links and reads them back; `base` is where the world finds the API."""

    def __init__(self, base: str, keys: list[str], *, made_up: bool = False) -> None:
        """`keys`: the last one signs, each is believed. `made_up`: no other process could read what this one signs."""
        self._made_up = made_up
        self._base = base.rstrip("/")
        self._serializer = URLSafeSerializer(keys, salt=SALT, signer_kwargs={"digest_method": hashlib.sha256})

    @classmethod
    def of(cls, settings: Settings) -> "Links":
        """Make what the settings describe."""
        keys = [*reversed(settings.secret_keys_old), settings.secret_key]
        return cls(settings.public_url, keys, made_up=settings.secret_key_is_made_up)

    @classmethod
    def of_runtime(cls, runtime: Runtime) -> "Links":
        """Return what signs and reads the links of this process."""
        return runtime.resource("unsubscribe_links", lambda: cls.of(runtime.state["settings"]))

    def link(self, reader: Reader | None) -> str:
        """Return the address of a reader's page; nothing without a reader, or for an email without such a link.

        Nothing either where SECRET_KEY is not set: a link that the API cannot read is worse than none.
        """
        return "" if reader is None or self._made_up else self.url(reader)

    @property
    def sample(self) -> str:
        """The address of a page of nobody, for previews."""
        return f"{self._base}/u/preview"

    def url(self, reader: Reader) -> str:
        """Return the address of a reader's page."""
        token = self._serializer.dumps(msgspec.to_builtins(reader))
        return f"{self._base}/u/{token!s}"

    def read(self, token: str) -> Reader | None:
        """Return whose link it is, or None for one that we did not make."""
        if len(token) > MAX_TOKEN:
            return None
        try:
            found: Any = self._serializer.loads(token)
            return msgspec.convert(found, Reader)
        except (BadSignature, msgspec.ValidationError):
            return None


def headers(link: str) -> dict[str, str]:
    """Return the two headers of RFC 8058 for a link; nothing without one."""
    if not link:
        return {}
    return {"List-Unsubscribe": f"<{link}>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}
