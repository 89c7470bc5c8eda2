"""How a mail leaves: what names it in the envelope, whose key signs it, by which server it goes."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from service.emails.reports.tags import Tags


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a stored mail; a mail that is sent directly has none of it."""

    id: UUID | None = None
    tenant_id: UUID | None = None
    signer: UUID | None = None
    relay: UUID | None = None

    def tag(self, tags: Tags, recipients: Sequence[str]) -> str:
        """What a server quotes in its reports on this transaction (RFC 3461); empty for an email without a row."""
        if self.id is None or self.tenant_id is None:
            return ""
        return tags.tag(self.tenant_id, self.id, recipients)

    def originals(self, tags: Tags, recipients: Sequence[str]) -> dict[str, str]:
        """What a server quotes in its reports for each recipient, where one tag for all does not say which."""
        if self.id is None or self.tenant_id is None:
            return {}
        return tags.originals(self.tenant_id, self.id, recipients)


def envelope_sender(address: str, return_path: str, tag: str) -> str:
    """The envelope's sender: the email's own, or the address that bounces go to, with the tag (VERP)."""
    if not return_path:
        return address
    local, _, domain = return_path.rpartition("@")
    return f"{local}+{tag}@{domain}" if tag else return_path
