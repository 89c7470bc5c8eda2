"""What happened to a mail, told from the ledger: its acceptance, every attempt that left a mark, how it ended."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.core import timeline as stories
from service.core.ids import email_id
from service.emails.reports.serializers import heard
from service.emails.schemas import Event

MAIL = text("""
SELECT e.id, e.created_at, e.scheduled_at, e.mode, e.template_key, cardinality(e.recipients) AS recipients,
       e.recipient_replies,
       m.state, m.started_at, m.finished_at, m.outcome, m.error, m.worker, m.cancel_requested, m.due_at, m.attempts,
       m.epoch, m.queue
FROM emails e LEFT JOIN messages m ON m.id = e.id
WHERE e.tenant_id = :tenant_id AND e.id = ANY(:ids)
""")
OF_REQUEST = text("""
SELECT e.id FROM emails e
WHERE e.request_id = :request_id AND e.tenant_id = :tenant_id ORDER BY e.id LIMIT 1000
""")
ATTEMPTS = text("SELECT * FROM message_attempts WHERE message_id = ANY(:ids) ORDER BY message_id, epoch, ended_at")

NAMES = {"done": "sent", "retry": "deferred", "snooze": "put_off", "dead": "failed"}
"""Events by the ledger's word for how an attempt ended; other words stand as they are."""

UNCERTAIN = (
    "The connection was lost after the final dot, so nobody can know whether the server has the mail. "
    "It is not sent again by itself: resolve it as sent or failed, or requeue it to risk a second copy. "
    "A bounce or a delivery report resolves it too."
)
ENDS = {"canceled", "expired"}
REFUSED = {"recipient_deferred", "recipient_refused"}
HEARD = {"delivered", "bounced", "delayed", "complained", "unsubscribed", "resubscribed"}
TOLD = {"accepted", "scheduled", "sent", "failed", "uncertain", "suppressed", "resolved", *REFUSED, *HEARD, *ENDS}
"""What a story keeps of a mail's events."""


async def events(connection: AsyncConnection, tenant_id: UUID, id: UUID) -> list[Event] | None:
    """Everything that happened to a tenant's mail, oldest first; None where there is no such mail."""
    return (await _events(connection, tenant_id, [id])).get(id)


async def story(connection: AsyncConnection, tenant_id: UUID, request_id: str) -> list[stories.Event]:
    """The mails of a request: when each was accepted and how it ended; its attempts are told with its task."""
    found = await connection.execute(OF_REQUEST, {"tenant_id": tenant_id, "request_id": request_id})
    told = await _events(connection, tenant_id, found.scalars().all())
    return [
        stories.Event(event.at, f"email_{event.event}", email_id(id), event.detail)
        for id, happened in told.items()
        for event in happened
        if event.event in TOLD
    ]


async def _events(connection: AsyncConnection, tenant_id: UUID, ids: Sequence[UUID]) -> dict[UUID, list[Event]]:
    mails = (await connection.execute(MAIL, {"tenant_id": tenant_id, "ids": list(ids)})).mappings().all()
    attempts: dict[UUID, list[RowMapping]] = {mail["id"]: [] for mail in mails}
    for row in (await connection.execute(ATTEMPTS, {"ids": list(attempts)})).mappings():
        attempts[row["message_id"]].append(row)
    later = await heard(connection, list(attempts))
    return {mail["id"]: _told(mail, attempts[mail["id"]], later.get(mail["id"], [])) for mail in mails}


def _told(mail: RowMapping, attempts: Sequence[RowMapping], later: Sequence[Event]) -> list[Event]:
    found = [*_accepted(mail), *_refused(mail), *map(_attempt, attempts), *_now(mail, attempts), *later]
    return sorted(found, key=lambda event: event.at)


def _accepted(mail: RowMapping) -> Iterator[Event]:
    detail = {"recipients": mail["recipients"], "mode": mail["mode"]}
    if mail["template_key"]:
        detail["template"] = mail["template_key"]
    yield Event(at=mail["created_at"], event="accepted", detail=detail)
    if mail["scheduled_at"] is not None and mail["scheduled_at"] > mail["created_at"]:
        yield Event(at=mail["created_at"], event="scheduled", detail={"for": mail["scheduled_at"]})


def _refused(mail: RowMapping) -> Iterator[Event]:
    """The recipients that the server refused, or deferred, beside others that it accepted."""
    for address, stored in (mail["recipient_replies"] or {}).items():
        detail = {"recipient": address, "reply": stored["reply"]}
        if other := stored.get("continued_by"):
            detail["continued_by"] = email_id(UUID(other))
        at = datetime.fromisoformat(stored["at"]).astimezone(UTC)
        yield Event(at=at, event=f"recipient_{stored['status']}", detail=detail)


def _attempt(row: RowMapping) -> Event:
    detail = {"attempt": row["epoch"], "worker": row["worker"], **(row["detail"] or {})}
    error, status = detail.pop("error", None), detail.pop("status", None)
    if error:
        detail["error"] = error.get("message") or error.get("reason") or error.get("type")
    if row["started_at"] is not None:
        detail["duration_ms"] = _milliseconds(row["started_at"], row["ended_at"])
    if row["outcome"] == "uncertain":
        detail["explanation"] = UNCERTAIN
    known = {key: value for key, value in detail.items() if value is not None}
    return Event(at=row["ended_at"], event=status or NAMES.get(row["outcome"], row["outcome"]), detail=known)


def _now(mail: RowMapping, attempts: Sequence[RowMapping]) -> Iterator[Event]:
    """What no attempt wrote down: that one is running, or an end that needed none."""
    state = mail["state"]
    if state == "running":
        yield Event(at=mail["started_at"], event="sending", detail={"attempt": mail["epoch"], "worker": mail["worker"]})
    elif state in ENDS and not any(row["outcome"] == state for row in attempts):
        yield Event(at=mail["finished_at"] or mail["created_at"], event=state)
    elif state == "queued" and attempts:
        yield Event(at=attempts[-1]["ended_at"], event="waiting", detail={"next_attempt_at": mail["due_at"]})


def _milliseconds(start: datetime, end: datetime) -> int:
    return round((end - start).total_seconds() * 1000)
