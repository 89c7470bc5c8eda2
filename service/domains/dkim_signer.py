"""Signs the mail of verified domains; each key is read and opened once per process, and used in a thread."""

import asyncio
from collections import OrderedDict
from uuid import UUID

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.ledger.database import fetch
from service.core.encryption import Sealer
from service.domains import keys
from service.mail import dkim

MOST_KEPT = 1000

SENDER_DOMAIN = "lower(rtrim(substring(e.sender FROM '@([^@]*)$'), '>'))"
"""The domain that a mail `e` comes from, as SQL."""
SIGNER = f"""
SELECT s.id FROM senders s
WHERE s.tenant_id = e.tenant_id AND s.domain = {SENDER_DOMAIN} AND s.verified_at IS NOT NULL
"""  # noqa: S608 (our own SQL)
"""The verified sender of a mail `e`, or null. SQL."""
KEY = "SELECT domain, selector, private_key FROM senders WHERE id = $1"


class _Key(msgspec.Struct, frozen=True):
    domain: str
    selector: str
    key: RSAPrivateKey


class Signers:
    """The keys of every sender, as one worker knows them. A key never changes: another key is another sender."""

    def __init__(self, engine: AsyncEngine, sealer: Sealer) -> None:
        self._engine = engine
        self._sealer = sealer
        self._keys: OrderedDict[UUID, _Key] = OrderedDict()

    async def sign(self, sender_id: UUID, data: bytes) -> bytes:
        """Return a mail with the signature of a sender; as it is where the sender was deleted just now.

        Raises CannotOpen where the key was sealed with another ENCRYPTION_KEYS than ours.
        """
        key = await self._key(sender_id)
        if key is None:
            return data
        return await asyncio.to_thread(dkim.sign, data, key.domain, key.selector, key.key)

    async def _key(self, sender_id: UUID) -> _Key | None:
        if (known := self._keys.get(sender_id)) is not None:
            self._keys.move_to_end(sender_id)
            return known
        rows = await fetch(self._engine, KEY, sender_id)
        if not rows:
            return None
        private = self._sealer.open(bytes(rows[0]["private_key"]), keys.about(sender_id))
        found = _Key(rows[0]["domain"], rows[0]["selector"], keys.read(private))
        if len(self._keys) >= MOST_KEPT:
            self._keys.popitem(last=False)
        self._keys[sender_id] = found
        return found
