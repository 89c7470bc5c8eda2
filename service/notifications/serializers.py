"""Reads notifications: one with where its mails are, or a page of them."""

import time
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.core.errors import ErrorOut
from service.core.ids import notification_id
from service.notifications.models import COUNTS, Status
from service.notifications.prepare import Order
from service.notifications.schemas import (
    Channels,
    Counts,
    EmailCounts,
    InboxCounts,
    NotificationOut,
    ProgressOut,
)

SPOKEN = {"Retry", "Dead", "Uncertain"}
"""Errors that an actor spoke itself: its report says why."""
_COLUMNS = (
    "n.id, n.type, n.mode, n.category, n.actor, n.data, n.channels, n.critical, n.dedup_key, n.dedup_window,"
    " n.request_id, n.created_at, n.updated_at, n.finished_at, n.after_no, m.state, m.attempts, m.error, m.outcome,"
    " m.progress, " + ", ".join(f"n.{name}" for name in COUNTS)
)
_SOURCE = "FROM notifications n LEFT JOIN messages m ON m.id = n.id WHERE n.tenant_id = :tenant_id AND n.mode = :mode"
_ONE = text(f"SELECT {_COLUMNS} {_SOURCE} AND n.id = :id")
_PAGE = {
    False: text(f"SELECT {_COLUMNS} {_SOURCE} ORDER BY n.id DESC LIMIT :limit"),
    True: text(f"SELECT {_COLUMNS} {_SOURCE} AND n.id < :before ORDER BY n.id DESC LIMIT :limit"),
}
_STATES = text("""
SELECT e.status, count(*) AS mails
FROM deliveries d JOIN emails e ON e.id = d.email_id
WHERE d.notification_id = :id AND d.channel = 'email' AND d.pace IS NULL
GROUP BY e.status ORDER BY e.status
""")


class MailStates:
    """Counts the mails of notifications by state; a count that took long is not taken again soon."""

    def __init__(self, *, share: float = 0.05, most: int = 1_000) -> None:
        """`share`: of the time, what the counting of one notification may take. `most`: counts that are kept."""
        self._share, self._most = share, most
        self._kept: dict[UUID, tuple[float, dict[str, int]]] = {}

    async def of(self, connection: AsyncConnection, id: UUID) -> dict[str, int]:
        """Return how many mails of a notification are in which state."""
        kept = self._kept.get(id)
        if kept is not None and time.monotonic() < kept[0]:
            return kept[1]
        began = time.monotonic()
        found = {row.status: row.mails for row in await connection.execute(_STATES, {"id": id})}
        took = time.monotonic() - began
        if took > 0.01:
            if len(self._kept) >= self._most:
                self._kept.clear()
            self._kept[id] = time.monotonic() + took / self._share, found
        return found


async def one(
    connection: AsyncConnection, tenant_id: UUID, mode: str, id: UUID, states: MailStates
) -> NotificationOut | None:
    """Return a notification, or None where there is none."""
    row = (await connection.execute(_ONE, {"tenant_id": tenant_id, "mode": mode, "id": id})).mappings().one_or_none()
    if row is None:
        return None
    return _told(row, await states.of(connection, id) if row["email_queued"] else {})


async def page(
    connection: AsyncConnection, tenant_id: UUID, mode: str, *, limit: int, before: UUID | None
) -> list[NotificationOut]:
    """Return notifications, newest first."""
    values = {"tenant_id": tenant_id, "mode": mode, "limit": limit, "before": before}
    if before is None:
        del values["before"]
    rows = await connection.execute(_PAGE[before is not None], values)
    return [_told(row, None) for row in rows.mappings()]


def accepted(made: Order) -> NotificationOut:
    """Tell a notification as it is at acceptance."""
    asked = made.asked
    return NotificationOut(
        id=notification_id(made.id),
        type=asked.type,
        status=Status.QUEUED,
        task_id=str(made.id),
        request_id=made.request_id,
        attempts=0,
        error=None,
        created_at=made.created_at,
        updated_at=made.created_at,
        mode=made.mode,
        category=asked.category,
        actor=asked.actor,
        data=asked.data,
        channels=made.channels,
        critical=asked.critical,
        dedup_key=asked.dedup_key,
        dedup_window=asked.dedup_window,
        counts=Counts(channels=Channels(email=EmailCounts(states={}))),
        progress=None,
        finished_at=None,
    )


def _told(row: RowMapping, states: dict[str, int] | None) -> NotificationOut:
    status = _status(row)
    same = ("type", "request_id", "created_at", "updated_at", "mode", "category", "actor", "data", "channels")
    more = ("critical", "dedup_key", "dedup_window", "finished_at")
    return NotificationOut(
        id=notification_id(row["id"]),
        status=status,
        task_id=str(row["id"]),
        attempts=row["attempts"] or 0,
        error=None if status is Status.COMPLETED else _error(row, status),
        counts=_counts(row, states),
        progress=_progress(row),
        **{name: row[name] for name in (*same, *more)},
    )


def _status(row: RowMapping) -> Status:
    if row["finished_at"] is not None:
        return Status.COMPLETED
    match row["state"]:
        case "queued":
            return Status.PROCESSING if row["after_no"] else Status.QUEUED
        case "running" | "done":
            return Status.PROCESSING
        case "canceled" | None:
            return Status.CANCELED
        case _:
            return Status.FAILED


def _counts(row: RowMapping, states: dict[str, int] | None) -> Counts:
    inbox = {name.removeprefix("inbox_"): row[name] for name in COUNTS if name.startswith("inbox_")}
    email = {name.removeprefix("email_"): row[name] for name in COUNTS if name.startswith("email_")}
    return Counts(
        resolved=row["resolved"],
        overlapping=row["overlapping"],
        excluded=row["excluded"],
        deduplicated=row["deduplicated"],
        channels=Channels(inbox=InboxCounts(**inbox), email=EmailCounts(**email, states=states)),
    )


def _error(row: RowMapping, status: Status) -> ErrorOut | None:
    error: dict[str, Any] | None = row["error"]
    if not error:
        return None
    kind = str(error.get("type", "error"))
    told = (row["outcome"] or {}) if kind in SPOKEN else {}
    code = str(told.get("reason") or kind)
    detail = str(error.get("message") or error.get("reason") or code)
    return ErrorOut(code=code, detail=detail, retryable=not status.terminal)


def _progress(row: RowMapping) -> ProgressOut | None:
    if row["progress"] is None and not row["resolved"]:
        return None
    done = row["resolved"] + row["overlapping"]
    return ProgressOut(done=done, total=done if row["finished_at"] else (row["progress"] or {}).get("total"))
