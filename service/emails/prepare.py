"""From a request to a mail that is fit to be stored; HTTP routes and calls in process both come through here."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from uuid_utils.compat import uuid7

from service.core.errors import Fault, Forbidden, Invalid
from service.core.validation import pointed
from service.domains.sender_policy import House
from service.emails import validation
from service.emails.models import Lane
from service.emails.schemas import EmailRequest
from service.mail.addresses import Address, AddressRefused, parse_address, unique
from service.mail.attachments import Attachment
from service.suppressions.unsubscribe import eligibility
from service.templates.reference import template_faults
from service.templates.schemas import TemplateRef
from service.templates.tenant.lookup import Pinned


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A mail that keeps every rule; `id` is the mail's, its message's and its Message-ID's."""

    id: UUID
    created_at: datetime
    message_id: str
    sender: Address
    to: list[Address]
    cc: list[Address]
    bcc: list[Address]
    reply_to: list[Address]
    subject: str | None
    html: str | None
    text: str | None
    template: TemplateRef | None
    headers: dict[str, str]
    files: list[Attachment]
    tags: list[str]
    metadata: dict[str, Any]
    category: str | None
    unsubscribable: bool
    lane: Lane
    dedup_key: str | None
    scheduled_at: datetime | None
    expires_at: datetime | None
    template_version: int | None = None
    bulk_id: UUID | None = None
    dedup_until: datetime | None = None
    uncertain: str = "hold"

    @property
    def recipients(self) -> list[str]:
        """The envelope: each distinct addr-spec of to, cc and bcc."""
        everybody = unique([*self.to, *self.cc, *self.bcc]) if self.cc or self.bcc else self.to
        return [address.addr_spec for address in everybody]


def draft(request: EmailRequest, house: House, id: UUID | None = None, *, pinned: Pinned | None = None) -> Draft:
    """Check a request against every rule; return the mail it asks for, made of the tenant's template that is `pinned`.

    Raises Invalid (422) naming every fault by JSON pointer, or Forbidden (403) for a sender of a domain that is not
    this service's to send from.
    """
    id = id or uuid7()
    now = moment(id)
    faults: list[Fault] = []
    sender = house.sender if request.sender is None else _address(request.sender, "/from", faults, private=True)
    to, cc = _addresses(request.to, "/to", faults), _addresses(request.cc, "/cc", faults)
    bcc, reply_to = _addresses(request.bcc, "/bcc", faults), _addresses(request.reply_to, "/reply_to", faults)
    files = [Attachment(f.filename, f.content, f.content_type, f.content_id) for f in request.attachments]
    recipients = len(to) if not cc and not bcc else len(unique([*to, *cc, *bcc]))
    faults += validation.request_faults(request, files, now)
    if request.unsubscribe:
        faults += eligibility.unsubscribe_faults(request, recipients)
    if request.template is not None:
        faults += template_faults(request.template, "/template", pinned)
    if faults or sender is None:
        raise Invalid(faults)
    _allow(sender, house)
    return Draft(
        id=id,
        created_at=now,
        message_id=f"<{id}@{house.host}>",
        sender=sender,
        to=to,
        cc=cc,
        bcc=bcc,
        reply_to=reply_to,
        subject=request.subject,
        html=request.html,
        text=request.text,
        template=_meant(request.template, pinned),
        headers=request.headers,
        files=files,
        tags=request.tags,
        metadata=request.metadata,
        category=request.category,
        unsubscribable=eligibility.unsubscribable(request, recipients),
        lane=Lane(request.lane),
        dedup_key=request.dedup_key,
        scheduled_at=None if request.scheduled_at is None else max(request.scheduled_at.astimezone(UTC), now),
        expires_at=None if request.expires_at is None else request.expires_at.astimezone(UTC),
        template_version=None if pinned is None else pinned.version.version,
        dedup_until=None if request.dedup_window is None else now + timedelta(seconds=request.dedup_window),
        uncertain=request.uncertain,
    )


def moment(id: UUID) -> datetime:
    """The millisecond at which a UUIDv7 was made (RFC 9562, 5.7)."""
    return datetime.fromtimestamp((id.int >> 80) / 1000, UTC)


def _meant(wanted: TemplateRef | None, pinned: Pinned | None) -> TemplateRef | None:
    if wanted is None or pinned is None:
        return wanted
    return msgspec.structs.replace(wanted, version=pinned.version.version, locale=pinned.locale)


def _address(text: str, pointer: str, faults: list[Fault], *, private: bool = False) -> Address | None:
    try:
        return parse_address(text, private=private)
    except AddressRefused as error:
        faults += pointed(pointer, error.faults)
        return None


def _addresses(given: Any, pointer: str, faults: list[Fault]) -> list[Address]:
    if not given and given != "":
        return []
    if isinstance(given, str):
        one = _address(given, pointer, faults)
        return [] if one is None else [one]
    # Reading one costs about 50 µs: a list far over the limit is refused by its length, not read to its end.
    few = given[: 2 * validation.MAX_RECIPIENTS]
    found = [_address(text, f"{pointer}/{index}", faults) for index, text in enumerate(few)]
    return unique(address for address in found if address is not None)


def _allow(sender: Address, house: House) -> None:
    domain = sender.addr_spec.rpartition("@")[2].lower()
    if house.verified_only and domain not in house.domains:
        raise Forbidden(
            f"The domain {domain} is not verified: add it with POST /v1/senders, publish its records, then ask for"
            " …/verify.",
            code="sender-not-verified",
        )
    if "*" not in house.domains and not house.domains & {sender.domain, domain}:
        raise Forbidden(
            f"Mail from {sender.domain} is not this service's to send: use a sender of "
            f"{', '.join(sorted(house.domains))}, verify the domain (POST /v1/senders), or have it added to"
            " MAIL_DOMAINS.",
            code="sender-not-allowed",
        )
