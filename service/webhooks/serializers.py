"""Reads deliveries: one with its attempts, or a page of them."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.core.errors import ErrorOut
from service.webhooks.deliver import body_of
from service.webhooks.models import Status, delivery_id, endpoint_id, event_id
from service.webhooks.params import unknown_delivery
from service.webhooks.schemas import AttemptOut, DeliveryDetail, DeliveryOut

STATUS = """
    CASE m.state WHEN 'queued' THEN 'pending' WHEN 'running' THEN 'sending' WHEN 'canceled' THEN 'canceled'
        WHEN 'done' THEN CASE WHEN m.outcome ? 'skipped' THEN 'canceled' ELSE 'delivered' END ELSE 'failed' END
"""
COLUMNS = f"""
    d.id, d.endpoint_id, d.event_id, d.created_at, v.type, v.request_id, v.data, v.created_at AS happened_at,
    m.state, m.attempts, m.error, m.outcome, m.due_at, m.started_at, m.finished_at, {STATUS} AS status
"""
SOURCE = """
    FROM webhook_deliveries d JOIN webhook_events v ON v.id = d.event_id JOIN messages m ON m.id = d.id
"""
CONDITIONS = {
    "endpoint_id": "d.endpoint_id = :endpoint_id",
    "status": f"{STATUS} = :status",
    "type": "v.type = :type",
    "before": "d.id < :before",
}
ATTEMPTS = text("SELECT * FROM message_attempts WHERE message_id = :id ORDER BY epoch, ended_at")
WORDS = {"done": "delivered", "retry": "failed", "dead": "failed", "snooze": "rested"}
"""Attempts by the ledger's word for how they ended; other words stand as they are."""


async def page(connection: AsyncConnection, tenant_id: UUID, *, limit: int, **filters: Any) -> list[DeliveryOut]:
    """Read up to `limit` deliveries, newest first; `filters` are those of CONDITIONS that are not None."""
    given = {name: value for name, value in filters.items() if value is not None}
    where = " AND ".join(["d.tenant_id = :tenant_id", *(CONDITIONS[name] for name in given)])
    statement = text(f"SELECT {COLUMNS} {SOURCE} WHERE {where} ORDER BY d.id DESC LIMIT :limit")
    found = await connection.execute(statement, {**given, "tenant_id": tenant_id, "limit": limit})
    return [DeliveryOut(**_fields(row)) for row in found.mappings()]


async def one(connection: AsyncConnection, tenant_id: UUID, endpoint: UUID, id: UUID) -> DeliveryDetail:
    """Read a delivery with what is sent and every attempt. Raises NotFound."""
    where = "WHERE d.id = :id AND d.endpoint_id = :endpoint AND d.tenant_id = :tenant_id"
    found = await connection.execute(
        text(f"SELECT {COLUMNS} {SOURCE} {where}"), {"id": id, "endpoint": endpoint, "tenant_id": tenant_id}
    )
    row = found.mappings().one_or_none()
    if row is None:
        raise unknown_delivery()
    history = [_attempt(each) for each in (await connection.execute(ATTEMPTS, {"id": id})).mappings()]
    payload = msgspec.json.decode(body_of(row["event_id"], row["type"], row["happened_at"], row["data"]))
    return DeliveryDetail(**_fields(row), payload=payload, history=history)


def _fields(row: RowMapping) -> dict[str, Any]:
    status = Status(row["status"])
    outcome = row["outcome"] or {}
    return {
        "id": delivery_id(row["id"]),
        "endpoint_id": endpoint_id(row["endpoint_id"]),
        "event_id": event_id(row["event_id"]),
        "type": row["type"],
        "status": status,
        "task_id": str(row["id"]),
        "request_id": row["request_id"],
        "attempts": row["attempts"] + (row["state"] in ("running", "done")),
        "last_status": outcome.get("status"),
        "error": _error(row, status, outcome),
        "created_at": _utc(row["created_at"]),
        "updated_at": _utc(row["finished_at"] or row["started_at"] or row["created_at"]),
        "next_attempt_at": _utc(row["due_at"]) if status is Status.PENDING else None,
    }


def _error(row: RowMapping, status: Status, outcome: dict[str, Any]) -> ErrorOut | None:
    error = row["error"]
    if outcome.get("skipped"):
        return ErrorOut(code="endpoint-disabled", detail=outcome["skipped"], retryable=False)
    if not error or status is Status.DELIVERED:
        return None
    detail = error.get("message") or error.get("reason") or error.get("type", "error")
    return ErrorOut(code=outcome.get("code", error.get("type", "error")), detail=detail, retryable=not status.terminal)


def _attempt(row: RowMapping) -> AttemptOut:
    detail = row["detail"] or {}
    error = detail.get("error") or {}
    return AttemptOut(
        at=row["ended_at"],
        outcome=WORDS.get(row["outcome"], row["outcome"]),
        status=detail.get("status"),
        ms=detail.get("ms"),
        body=detail.get("body"),
        error=error.get("message") or error.get("reason") or error.get("type"),
    )


def _utc(moment: datetime | None) -> Any:
    return None if moment is None else moment.astimezone(UTC)
