"""What a report does: an event of the mail, the mail's state, a suppression. The same report again does nothing.

A mail's state only ever moves on: sent, delivered, bounced, complained. A mail that is in doubt is resolved by the
report (service.emails.evidence); one that is being sent keeps the word until it is sent.
"""

from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from service.emails.evidence import Action, Evidence, resolve
from service.emails.inbound.report import Report
from service.emails.models import OPEN
from service.emails.suppressions import book
from service.emails.suppressions.book import Entry
from service.emails.suppressions.matching import canonical
from service.emails.suppressions.models import Reason

SOFT_LIMIT = 5
"""Mails that came back within SOFT_WITHIN for reasons that pass; then the address is taken for dead."""
SOFT_WITHIN = "30 days"

FIND = text(f"""
SELECT id, mode, recipients, {OPEN} AS open, message_id, created_at FROM emails e
WHERE tenant_id = :tenant_id AND mode = :mode
    AND (id = ANY(:ids) OR (follows IS NOT NULL AND message_id = ANY(:message_ids)))
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


class _Mail(msgspec.Struct, frozen=True, kw_only=True):
    """The mail that a report is about, and the recipient as we wrote it, where that is known."""

    tenant_id: UUID
    id: UUID
    mode: str
    message_id: str
    created_at: datetime
    address: str | None


async def ingest(session: AsyncSession, tenant_id: UUID, report: Report, *, mode: str, by: str) -> Told:
    """Take in one report on a `live` or a `test` mail in the caller's transaction; `by` is who brought it."""
    mail = await _find(session, tenant_id, mode, report)
    if mail is None:
        return Told(outcome="unknown", recipient=report.recipient)
    if not await _note(session, mail, report):
        return Told(outcome="repeated", email_id=mail.id, recipient=mail.address)
    await resolve(await session.connection(), _evidence(mail, report), by=by, tenant_id=tenant_id)
    if report.action != "delayed":
        await session.execute(MOVE, {"email_id": mail.id, "event": report.action})
    suppressed = await _suppress(session, mail, report)
    return Told(outcome="recorded", email_id=mail.id, recipient=mail.address, suppressed=suppressed)


def named(names: tuple[str, ...]) -> list[UUID]:
    """The ids of mails among the names of one: `em_…`, 32 hex digits, what stands before the @ of a Message-ID."""
    found = []
    for name in names:
        try:
            found.append(UUID(name.strip("<> ").partition("@")[0].rpartition("_")[2]))
        except ValueError:
            continue
    return found


async def _find(session: AsyncSession, tenant_id: UUID, mode: str, report: Report) -> _Mail | None:
    """Find the mail; of those that share a Message-ID, the one that serves this recipient, or else was for it."""
    values = {"tenant_id": tenant_id, "mode": mode, "ids": named(report.names), "message_ids": list(report.names)}
    mails = (await session.execute(FIND, values)).mappings().all()
    given = canonical(report.recipient or "")
    served, was_for = (
        [mail for mail in mails if given in map(canonical, mail[column])] for column in ("open", "recipients")
    )
    mails = served or was_for or mails
    if not mails:
        return None
    row = mails[0]
    address = _address(given, list(map(canonical, row["recipients"])))
    kept = {name: row[name] for name in ("id", "mode", "message_id", "created_at")}
    return _Mail(tenant_id=tenant_id, address=address, **kept)


def _address(given: str, ours: list[str]) -> str | None:
    """The recipient as we wrote it: a forwarder may report an address that we never had, or none at all."""
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
    }
    return {name: value for name, value in told.items() if value}


def _evidence(mail: _Mail, report: Report) -> Evidence:
    return Evidence(
        action=EVIDENCE[report.action],
        message_id=mail.message_id,
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
    return bool(await book.enter(session, mail.tenant_id, mail.mode, [entry]))


async def _soft_bounces(session: AsyncSession, mail: _Mail) -> int:
    found = await session.execute(SOFT, {"tenant_id": mail.tenant_id, "address": mail.address})
    count: int = found.scalar_one()
    return count
