"""Reads mails for the API: one, a page of them, and what was rendered of one."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import RowMapping, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.core.errors import ErrorOut
from service.core.ids import bulk_id, email_id
from service.emails import insert_columns
from service.emails.models import Status
from service.emails.prepare import Draft
from service.emails.schemas import AttachmentOut, EmailOut, RecipientOut, TemplateOut
from service.mail.address_text import canonical, spell

COLUMNS = """
    e.id, e.mode, e.status, e.lane, e.request_id, e.category, e.dedup_key, e.dedup_until, e.follows,
    e.resend_of, e.bulk_id,
    e.message_id, e.sender, e.to_, e.cc, e.bcc, e.reply_to, coalesce(e.subject, e.rendered_subject) AS subject,
    e.template_key, e.template_locale, e.template_version, e.tags, e.metadata, e.attachments,
    e.scheduled_at, e.expires_at, e.created_at, e.updated_at,
    e.unsubscribable,
    e.status = 'queued' AND e.scheduled_at > clock_timestamp() AS waiting,
    m.state, m.attempts, m.crashes, m.error, m.outcome, m.due_at, m.finished_at,
    e.recipients, e.recipient_replies,
    CASE WHEN e.delivery IS NOT NULL AND cardinality(e.recipients) > 1 THEN (
        SELECT jsonb_object_agg(h.address, h.event) FROM (
            SELECT DISTINCT ON (address) address, event FROM email_events
            WHERE email_id = e.id AND address IS NOT NULL AND event IN ('delivered', 'bounced', 'complained')
                AND coalesce(detail ->> 'trust', 'caller') IN ('caller', 'recipient')
            ORDER BY address, array_position(ARRAY['delivered', 'bounced', 'complained'], event) DESC
        ) AS h) END AS reported
"""
SOURCE = "FROM emails e LEFT JOIN messages m ON m.id = e.id"

ONE = text(f"SELECT {COLUMNS} {SOURCE} WHERE e.id = :id AND e.tenant_id = :tenant_id")
DEDUPLICATED = text(f"SELECT {COLUMNS} {SOURCE} WHERE e.tenant_id = :tenant_id AND e.dedup_key = :dedup_key")


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """What a list is narrowed to; None leaves it open. Times are a range of ids: the id begins with its millisecond."""

    status: Status | None = None
    to: str | None = None
    tag: str | None = None
    template: str | None = None
    bulk: UUID | None = None
    request_id: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None

    def given(self) -> dict[str, object]:
        """The filters that are set."""
        return {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}


async def one(connection: AsyncConnection, tenant_id: UUID, id: UUID) -> EmailOut | None:
    """Return a tenant's mail, or None."""
    row = (await connection.execute(ONE, {"id": id, "tenant_id": tenant_id})).mappings().one_or_none()
    return None if row is None else _told(row)


async def deduplicated(connection: AsyncConnection, tenant_id: UUID, dedup_key: str) -> EmailOut | None:
    """Return the tenant's mail that bears this key, or None."""
    found = await connection.execute(DEDUPLICATED, {"tenant_id": tenant_id, "dedup_key": dedup_key})
    row = found.mappings().one_or_none()
    return None if row is None else _told(row)


async def page(
    connection: AsyncConnection, tenant_id: UUID, filters: Filters, *, before: UUID | None, limit: int
) -> list[EmailOut]:
    """Return up to `limit` mails with ids below `before`, newest first."""
    statement, values = _list(filters, before)
    found = await connection.execute(statement, {**values, "tenant_id": tenant_id, "limit": limit})
    return [_told(row) for row in found.mappings()]


def accepted(made: Draft, mode: str, request_id: str | None) -> EmailOut:
    """The mail as it is told at once: what `one` would say of it right after the commit."""
    scheduled = made.scheduled_at is not None and made.scheduled_at > made.created_at
    status = Status.SCHEDULED if scheduled else Status.QUEUED
    template = made.template
    return EmailOut(
        id=email_id(made.id),
        status=status,
        task_id=str(made.id),
        request_id=request_id,
        attempts=0,
        error=None,
        created_at=made.created_at,
        updated_at=made.created_at,
        mode=mode,
        lane=made.lane,
        message_id=made.message_id,
        sender=spell(made.sender),
        to=list(map(spell, made.to)),
        cc=list(map(spell, made.cc)),
        bcc=list(map(spell, made.bcc)),
        recipients=[RecipientOut(address=each, status=status) for each in made.recipients],
        reply_to=list(map(spell, made.reply_to)),
        subject=made.subject,
        template=TemplateOut(key=template.key, version=template.version, locale=template.locale) if template else None,
        category=made.category,
        unsubscribe=made.unsubscribable,
        tags=made.tags,
        metadata=made.metadata,
        dedup_key=made.dedup_key,
        dedup_until=made.dedup_until,
        follows=None,
        resend_of=None,
        bulk=None if made.bulk_id is None else bulk_id(made.bulk_id),
        attachments=[msgspec.convert(file, AttachmentOut) for file in insert_columns.files(made)],
        scheduled_at=made.scheduled_at,
        expires_at=made.expires_at,
        next_attempt_at=made.scheduled_at or made.created_at,
    )


def _list(filters: Filters, before: UUID | None) -> tuple[TextClause, dict[str, Any]]:
    where, values = ["e.tenant_id = :tenant_id"], dict(filters.given())
    if before is not None:
        where.append("e.id < :before")
        values["before"] = before
    if filters.created_after is not None:
        where.append("e.id >= :created_after")
        values["created_after"] = first_id(filters.created_after)
    if filters.created_before is not None:
        where.append("e.id < :created_before")
        values["created_before"] = first_id(filters.created_before)
    where += [condition for name, condition in CONDITIONS.items() if name in values]
    if filters.status is not None:
        where.append(_status(filters.status))
        values["status"] = Status.QUEUED.value if filters.status is Status.SCHEDULED else filters.status.value
    return text(f"SELECT {COLUMNS} {SOURCE} WHERE {' AND '.join(where)} ORDER BY e.id DESC LIMIT :limit"), values


CONDITIONS = {
    # Two indexes answer: the b-tree for mails to one, the inverted one for mails to several.
    "to": "(e.recipients[1] = :to OR (cardinality(e.recipients) > 1 AND e.recipients @> ARRAY[:to]))",
    "tag": ":tag = ANY(e.tags)",
    "template": "e.template_key = :template",
    "bulk": "e.bulk_id = :bulk",
    "request_id": "e.request_id = :request_id",
}


def _status(status: Status) -> str:
    waiting = "e.scheduled_at > clock_timestamp()"
    if status is Status.SCHEDULED:
        return f"e.status = :status AND {waiting}"
    if status is Status.QUEUED:
        return f"e.status = :status AND ({waiting}) IS NOT TRUE"
    return "e.status = :status"


def first_id(moment: datetime) -> UUID:
    """The lowest id that a mail made at `moment` could have."""
    return UUID(int=max(0, int(moment.timestamp() * 1000)) << 80)


def _told(row: RowMapping) -> EmailOut:
    status = Status.SCHEDULED if row["waiting"] else Status(row["status"])
    return EmailOut(
        id=email_id(row["id"]),
        status=status,
        task_id=str(row["id"]),
        request_id=row["request_id"],
        attempts=(row["attempts"] or 0) + (row["state"] in ("running", "done")),
        error=_error(row, status),
        created_at=_utc(row["created_at"]),
        updated_at=_utc(row["updated_at"]),
        mode=row["mode"],
        lane=row["lane"],
        message_id=row["message_id"],
        sender=row["sender"],
        to=row["to_"],
        cc=row["cc"],
        bcc=row["bcc"],
        recipients=list(_recipients(row, status)),
        reply_to=row["reply_to"],
        subject=row["subject"],
        template=_template(row),
        category=row["category"],
        unsubscribe=row["unsubscribable"],
        tags=row["tags"],
        metadata=row["metadata"],
        dedup_key=row["dedup_key"],
        dedup_until=_utc(row["dedup_until"]) if row["dedup_key"] else None,
        follows=email_id(row["follows"]) if row["follows"] else None,
        resend_of=email_id(row["resend_of"]) if row["resend_of"] else None,
        bulk=bulk_id(row["bulk_id"]) if row["bulk_id"] else None,
        attachments=[msgspec.convert(file, AttachmentOut) for file in row["attachments"]],
        scheduled_at=_utc(row["scheduled_at"]),
        expires_at=_utc(row["expires_at"]),
        next_attempt_at=_utc(row["due_at"]) if row["state"] == "queued" else None,
        sent_at=_utc(row["finished_at"]) if row["state"] == "done" and status is not Status.SUPPRESSED else None,
    )


def _recipients(row: RowMapping, status: Status) -> Iterator[RecipientOut]:
    replies, reported, outcome = row["recipient_replies"] or {}, row["reported"], row["outcome"] or {}
    refused, suppressed = outcome.get("refused") or {}, outcome.get("suppressed") or {}
    reply = _reply(outcome)
    for address in row["recipients"]:
        if (stored := replies.get(address)) is not None:
            other = stored.get("continued_by")
            yield RecipientOut(
                address=address,
                status=stored["status"],
                reply=stored["reply"],
                continued_by=email_id(UUID(other)) if other else None,
            )
        elif suppressed and canonical(address) in suppressed:
            yield RecipientOut(address=address, status=Status.SUPPRESSED)
        elif (said := refused.get(address)) is not None:
            final = status is Status.FAILED and said.startswith("5")
            yield RecipientOut(address=address, status="refused" if final else status, reply=said)
        else:
            told = status if reported is None else reported.get(canonical(address), Status.SENT)
            yield RecipientOut(address=address, status=told, reply=reply)


def _reply(outcome: dict[str, Any]) -> str | None:
    """What the server said to the email as a whole, in the last attempt that heard from it."""
    code, text = outcome.get("code"), outcome.get("text")
    return None if code is None else f"{code} {text or ''}".rstrip()


def _template(row: RowMapping) -> TemplateOut | None:
    if row["template_key"] is None:
        return None
    return TemplateOut(key=row["template_key"], version=row["template_version"], locale=row["template_locale"])


VERDICTS = {"Retry", "Dead", "Uncertain", "Bounced"}


def _error(row: RowMapping, status: Status) -> ErrorOut | None:
    if status is Status.SUPPRESSED:
        return ErrorOut(code="suppressed", detail=f"every recipient is suppressed: {_suppressed(row['outcome'])}")
    error = row["error"]
    if not error or status is Status.SENT or (status is Status.QUEUED and "type" not in error):  # a snooze is no error
        return None
    # What the actor said itself stands with the attempt's report; other errors (a crash, a time limit) do not.
    told = (row["outcome"] or {}) if error.get("type") in VERDICTS else {}
    words = [str(told[name]) for name in ("code", "text") if told.get(name)]
    detail = ": ".join(filter(None, (error.get("message") or error.get("reason"), " ".join(words))))
    code = told.get("reason") or error.get("type", "error")
    return ErrorOut(code=code, detail=detail or code, retryable=not status.terminal)


def _suppressed(outcome: dict[str, Any]) -> str:
    return ", ".join(f"{address} ({reason})" for address, reason in outcome["suppressed"].items())


def _utc(moment: datetime | None) -> Any:
    return None if moment is None else moment.astimezone(UTC)
