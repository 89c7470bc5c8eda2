"""How a mail leaves: what names it in the envelope, whose key signs it, by which server it goes."""

from uuid import UUID

import msgspec


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a stored mail; a mail that is sent directly has none of it."""

    id: UUID | None = None
    signer: UUID | None = None
    relay: UUID | None = None

    def sender(self, address: str, return_path: str) -> str:
        """The envelope's sender: the mail's own, or the address that bounces go to, with the mail's id (VERP)."""
        if not return_path:
            return address
        local, _, domain = return_path.rpartition("@")
        return return_path if self.id is None else f"{local}+{self.id.hex}@{domain}"

    @property
    def envid(self) -> str:
        """What a server quotes in its reports (RFC 3461); empty for a mail without a row."""
        return "" if self.id is None else self.id.hex
