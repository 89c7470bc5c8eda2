"""The shapes of `/v1/senders`."""

from datetime import datetime

import msgspec

from service.domains.dns_records import Record


class SenderRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/senders`: a domain to send from."""

    domain: str


class SenderOut(msgspec.Struct, frozen=True, kw_only=True):
    """A domain, the DNS records that it needs, and since when they are known to be there."""

    id: str
    domain: str
    verified: bool
    verified_at: datetime | None
    checked_at: datetime | None
    created_at: datetime
    records: list[Record]


class SenderList(msgspec.Struct, frozen=True, kw_only=True):
    """Every domain of a tenant."""

    items: list[SenderOut]
