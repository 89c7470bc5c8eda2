"""Bulks as the API tells them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from service.broadcasts import repository
from service.broadcasts.models import Bulk, BulkStatus
from service.broadcasts.schemas import BulkOut
from service.core.errors import ErrorOut
from service.core.ids import bulk_id
from service.emails.schemas import TemplateOut

UNDER_WAY = ("queued", "sending", "pending")


async def told(connection: AsyncConnection, bulks: Sequence[Bulk]) -> list[BulkOut]:
    """Bulks with their counts as of now."""
    ids = [bulk.id for bulk in bulks]
    counts = await repository.counts(connection, ids)
    messages = await repository.messages(connection, ids)
    return [tell(bulk, counts[bulk.id], messages.get(bulk.id)) for bulk in bulks]


def tell(bulk: Bulk, mails: Mapping[str, int], message: RowMapping | None = None) -> BulkOut:
    """One bulk."""
    counts = dict(mails)
    if left := bulk.total - bulk.expanded:
        word = "canceled" if bulk.status == BulkStatus.CANCELED else "pending"
        counts[word] = counts.get(word, 0) + left
    template = bulk.request.template
    return BulkOut(
        id=bulk_id(bulk.id),
        status=status(bulk, counts),
        task_id=str(bulk.id),
        request_id=bulk.request_id,
        attempts=0 if message is None else message["attempts"] + (message["state"] in ("running", "done")),
        error=_error(message),
        created_at=_utc(bulk.created_at),
        updated_at=_utc(bulk.updated_at),
        mode=bulk.mode,
        name=bulk.name,
        template=TemplateOut(key=template.key, version=template.version or None, locale=template.locale),
        throttle=None if bulk.pace is None else spell_rate(bulk.pace, bulk.period or 1.0),
        uncertain=bulk.request.uncertain,
        scheduled_at=_utc(bulk.scheduled_at),
        total=bulk.total,
        duplicates=bulk.duplicates,
        refused=bulk.refused,
        counts=counts,
    )


def status(bulk: Bulk, counts: Mapping[str, int]) -> BulkStatus:
    """Where a bulk stands: what is stored, and what follows from the time and the counts."""
    stored = BulkStatus(bulk.status)
    if stored is not BulkStatus.RUNNING:
        return stored
    if bulk.scheduled_at is not None and bulk.scheduled_at > datetime.now(UTC):
        return BulkStatus.SCHEDULED
    return BulkStatus.RUNNING if any(counts.get(word) for word in UNDER_WAY) else BulkStatus.COMPLETED


def spell_rate(pace: int, period: float) -> str:
    """Write a throttle as it is read."""
    for word, seconds in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        if period % seconds == 0:
            many = int(period // seconds)
            return f"{pace}/{many if many > 1 else ''}{word}"
    return f"{pace}/{period:g}s"


def _error(message: RowMapping | None) -> ErrorOut | None:
    error: dict[str, Any] = (message["error"] if message is not None else None) or {}
    # Without a type it is the reason of a snooze: the broadcast waits for room or for its resumption, as it should.
    if "type" not in error or message is None or message["state"] == "done":
        return None
    words = str(error.get("message") or error.get("reason") or error["type"])
    return ErrorOut(code=str(error["type"]), detail=words, retryable=message["state"] == "queued")


def _utc(moment: datetime | None) -> Any:
    return None if moment is None else moment.astimezone(UTC)


async def one(connection: AsyncConnection, tenant_id: UUID, id: UUID) -> BulkOut | None:
    """Return a tenant's bulk, or None."""
    bulk = await repository.find(connection, id, tenant_id)
    return None if bulk is None else (await told(connection, [bulk]))[0]
