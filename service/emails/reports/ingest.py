"""What a report does: an event of the mail, the mail's state, a suppression. The same report again does nothing.

A mail's state only ever moves on: sent, delivered, bounced, complained. A mail that is in doubt is resolved by the
report (service.emails.reports.resolve_uncertain); one that is being sent keeps the word until it is sent.
"""

import re
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

import msgspec
from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from service.emails.models import OPEN
from service.emails.reports.report import Report
from service.emails.reports.resolve_uncertain import Action, Evidence, resolve
from service.emails.reports.tags import Tags, Trust, email_of
from service.mail.address_text import canonical
from service.suppressions import repository
from service.suppressions.models import Reason
from service.suppressions.repository import Entry

SOFT_LIMIT = 5
"""Mails that came back within SOFT_WITHIN for reasons that pass; then the address is taken for dead."""
SOFT_WITHIN = "30 days"
_SES = re.compile(r"[0-9a-f]{16}-[0-9a-f-]{20,60}-000000")

FIND = text(f"""
SELECT id, mode, recipients, {OPEN} AS open, message_id, created_at FROM emails e
WHERE tenant_id = :tenant_id AND mode = :mode
    AND (
        id = ANY(:ids) OR (follows IS NOT NULL AND message_id = ANY(:message_ids))
        OR provider_id = ANY(:provider_ids)
    )
ORDER BY id LIMIT 100
""")  # noqa: S608 (our own SQL)
NOTE = text("""
INSERT INTO email_events (id, tenant_id, email_id, key, event, address, detail, at)
VALUES (:id, :tenant_id, :email_id, :key, :event, :address, CAST(:detail AS jsonb), :at)
ON CONFLICT (tenant_id, key) DO NOTHING RETURNING id
""")
MOVE = text("""
UPDATE emails
SET delivery = :event, updated_at = clock_timestamp(),
    status = CASE WHEN status IN ('sent', 'delivered', 'bounced', 'complained') THEN :event ELSE status END
WHERE id = :email_id AND status NOT IN ('failed', 'canceled', 'expired', 'suppressed')
    AND coalesce(array_position(ARRAY['delivered', 'bounced', 'complained'], delivery), 0)
        < array_position(ARRAY['delivered', 'bounced', 'complained'], :event)
""")
SOFT = text(f"""
SELECT count(DISTINCT email_id) FROM email_events
WHERE tenant_id = :tenant_id AND address = :address AND event = 'bounced'
    AND coalesce(detail ->> 'trust', 'caller') IN ('caller', 'recipient')
    AND at > clock_timestamp() - interval '{SOFT_WITHIN}'
""")  # noqa: S608 (our own constant)

EVIDENCE: dict[str, Action] = {
    "delivered": "delivered",
    "delayed": "delayed",
    "bounced": "failed",
    "complained": "delivered",  # who complains has the mail
}


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a report: `recorded`, `repeated`, or `unknown` where it is about no mail of the tenant."""

    outcome: Literal["recorded", "repeated", "unknown"]
    email_id: UUID | None = None
    recipient: str | None = None
    suppressed: bool = False
    trust: Trust | None = None


class _Mail(msgspec.Struct, frozen=True, kw_only=True):
    """The email of a report, its recipient as we wrote it, where that is known, and how far the report is believed."""

    tenant_id: UUID
    id: UUID
    mode: str
    message_id: str
    created_at: datetime
    address: str | None
    trust: Trust


async def ingest(session: AsyncSession, tenant_id: UUID, report: Report, *, mode: str, by: str, tags: Tags) -> Told:
    """Take in one report on a `live` or a `test` mail in the caller's transaction; `by` is who brought it.

    Every report on an email is recorded. One that is stated by a caller, or whose tag binds its recipient, also settles
    an unknown outcome, moves the email's status and suppresses the address; one whose tag binds the email only proves
    that the server accepted it.
    """
    mail = await _find(session, tenant_id, mode, report, tags)
    if mail is None:
        return Told(outcome="unknown", recipient=report.recipient)
    told = Told(outcome="recorded", email_id=mail.id, recipient=mail.address, trust=mail.trust)
    if not await _note(session, mail, report):
        return msgspec.structs.replace(told, outcome="repeated")
    if mail.trust is not Trust.NONE:
        await resolve(await session.connection(), _evidence(mail, report), by=by, tenant_id=tenant_id)
    if not mail.trust.is_full:
        return told
    if report.action != "delayed":
        await session.execute(MOVE, {"email_id": mail.id, "event": report.action})
    return msgspec.structs.replace(told, suppressed=await _suppress(session, mail, report))


def named(names: tuple[str, ...]) -> list[UUID]:
    """The ids among the names of an email: `em_…`, 32 hex digits, in a tag, before the @ of a Message-ID."""
    found = []
    for name in names:
        if (tagged := email_of(name)) is not None:
            found.append(tagged)
            continue
        try:
            found.append(UUID(name.strip("<> ").partition("@")[0].rpartition("_")[2]))
        except ValueError:
            continue
    return found


def provider_ids(names: tuple[str, ...]) -> list[str]:
    """The ids among the names of a mail that Amazon SES gives it: it replaces the Message-ID by one with such an id."""
    locals = (name.strip("<> ").partition("@")[0].lower() for name in names)
    return [local for local in locals if _SES.fullmatch(local)]


async def _find(session: AsyncSession, tenant_id: UUID, mode: str, report: Report, tags: Tags) -> _Mail | None:
    """Find the mail; of those that share a Message-ID, the one that serves this recipient, or else was for it."""
    values = {
        "tenant_id": tenant_id,
        "mode": mode,
        "ids": named(report.names),
        "message_ids": list(report.names),
        "provider_ids": provider_ids(report.names),
    }
    mails = (await session.execute(FIND, values)).mappings().all()
    if not report.stated:
        recipients = {mail["id"]: mail["recipients"] for mail in mails}
        proof = tags.proof(tenant_id, report.names, report.recipient or "", recipients)
        if proof is not None:
            [row] = [mail for mail in mails if mail["id"] == proof.email_id]
            address = canonical(proof.address) if proof.address else _among(report.recipient, row["recipients"])
            return _mail(row, tenant_id, address, proof.trust)
    given = canonical(report.recipient or "")
    served, was_for = (
        [mail for mail in mails if given in map(canonical, mail[column])] for column in ("open", "recipients")
    )
    mails = served or was_for or mails
    if not mails:
        return None
    trust = Trust.CALLER if report.stated else Trust.NONE
    return _mail(mails[0], tenant_id, _among(report.recipient, mails[0]["recipients"]), trust)


def _mail(row: RowMapping, tenant_id: UUID, address: str | None, trust: Trust) -> _Mail:
    kept = {name: row[name] for name in ("id", "mode", "message_id", "created_at")}
    return _Mail(tenant_id=tenant_id, address=address, trust=trust, **kept)


def _among(reported: str | None, recipients: list[str]) -> str | None:
    """The recipient as we wrote it: a forwarder may report an address that we never had, or none at all."""
    given, ours = canonical(reported or ""), list(map(canonical, recipients))
    if given in ours:
        return given
    return ours[0] if len(ours) == 1 else None


async def _note(session: AsyncSession, mail: _Mail, report: Report) -> bool:
    """Store the event; False where it was told before."""
    now = datetime.now(UTC)
    values = {
        "id": uuid7(),
        "tenant_id": mail.tenant_id,
        "email_id": mail.id,
        "key": report.key,
        "event": report.action,
        "address": mail.address,
        "detail": msgspec.json.encode(_detail(mail, report)).decode(),
        "at": max(mail.created_at, min(report.at or now, now)),
    }
    return (await session.execute(NOTE, values)).one_or_none() is not None


def _detail(mail: _Mail, report: Report) -> dict[str, str]:
    other = report.recipient if report.recipient and canonical(report.recipient) != mail.address else ""
    bounce = ("hard" if report.is_hard else "soft") if report.action == "bounced" else ""
    told = {
        "type": bounce,
        "status": report.status,
        "diagnostic": report.diagnostic,
        "source": report.source,
        "reported": other,
        "trust": mail.trust.value,
    }
    return {name: value for name, value in told.items() if value}


def _evidence(mail: _Mail, report: Report) -> Evidence:
    if mail.trust is Trust.EMAIL:  # true of the whole email, whatever it says of a recipient
        return Evidence(action="relayed", envid=mail.id.hex)
    return Evidence(
        action=EVIDENCE[report.action],
        envid=mail.id.hex,
        recipient=mail.address,
        status=report.status,
        diagnostic=report.diagnostic,
    )


async def _suppress(session: AsyncSession, mail: _Mail, report: Report) -> bool:
    """Keep every mail from an address that complained or is dead; tells whether that is new."""
    if mail.address is None or report.action not in ("bounced", "complained"):
        return False
    reason, note = Reason.COMPLAINT, None
    if report.action == "bounced":
        reason = Reason.HARD_BOUNCE
        if not report.is_hard:
            count = await _soft_bounces(session, mail)
            if count < SOFT_LIMIT:
                return False
            note = f"{count} mails came back within {SOFT_WITHIN}"
    entry = Entry(address=mail.address, category=None, reason=reason, note=note, email_id=mail.id)
    return bool(await repository.enter(session, mail.tenant_id, mail.mode, [entry]))


async def _soft_bounces(session: AsyncSession, mail: _Mail) -> int:
    found = await session.execute(SOFT, {"tenant_id": mail.tenant_id, "address": mail.address})
    count: int = found.scalar_one()
    return count
