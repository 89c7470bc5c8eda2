"""One attempt of one delivery: what is sent, to whom, and what came of it."""

import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.egress import Answer, CallFailed
from service.webhooks.models import event_id
from service.webhooks.resources import Postroom
from service.webhooks.schedule import Fault, judge
from service.webhooks.signing import headers

AGENT = "Callboard-Webhooks/1"

LOAD = text("""
SELECT d.id, d.event_id, v.type, v.data, v.created_at, w.id AS endpoint_id, w.url, w.enabled, w.secret,
    CASE WHEN w.previous_until > clock_timestamp() THEN w.previous_secret END AS previous_secret,
    w.failing_since IS NOT NULL OR w.resting_until IS NOT NULL AS ill,
    extract(epoch FROM w.resting_until - clock_timestamp())::float8 AS rests,
    (SELECT count(*) FROM message_attempts a WHERE a.message_id = d.id AND a.outcome = 'retry'
        AND a.epoch > coalesce((SELECT max(epoch) FROM message_attempts r
            WHERE r.message_id = d.id AND r.outcome = 'requeued'), -1)) AS failed
FROM webhook_deliveries d
JOIN webhook_events v ON v.id = d.event_id
LEFT JOIN webhook_endpoints w ON w.id = d.endpoint_id
WHERE d.id = :id
""")


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery as it is to be made; `endpoint_id` is None where the endpoint was deleted.

    `rests`: seconds until a resting endpoint may be tried, negative once it may, None where it does not rest.
    `failed`: attempts that failed since the delivery was made or put back.
    """

    id: UUID
    event_id: UUID
    type: str
    data: Any
    created_at: datetime
    endpoint_id: UUID | None
    url: str | None
    enabled: bool | None
    secret: bytes | None
    previous_secret: bytes | None
    ill: bool | None
    rests: float | None
    failed: int

    @property
    def body(self) -> bytes:
        """What is sent: the same bytes at every attempt, since Postgres keeps the data and its order."""
        return body_of(self.event_id, self.type, self.created_at, self.data)


def body_of(id: UUID, type: str, at: datetime, data: Any) -> bytes:
    """Write an event as Standard Webhooks has it."""
    return msgspec.json.encode({"id": event_id(id), "type": type, "timestamp": at.astimezone(UTC), "data": data})


async def load(engine: AsyncEngine, id: UUID) -> Parcel | None:
    """Read a delivery with its event and its endpoint; None where there is no such delivery."""
    async with engine.connect() as connection:
        row = (await connection.execute(LOAD, {"id": id})).mappings().one_or_none()
    return None if row is None else Parcel(**row)


async def send(room: Postroom, parcel: Parcel) -> tuple[dict[str, Any], Fault | None]:
    """Make the call: what is kept of it, and why it did not deliver, or None. Raises CannotOpen."""
    if parcel.endpoint_id is None or parcel.url is None or parcel.secret is None:
        raise ValueError("there is nobody to send it to")
    sealed = filter(None, (parcel.secret, parcel.previous_secret))
    good = [room.open(each, parcel.endpoint_id) for each in sealed]
    body, now = parcel.body, int(time.time())
    sent = {"Content-Type": "application/json", "User-Agent": AGENT}
    try:
        answer = await room.caller.post(parcel.url, body, sent | headers(good, event_id(parcel.event_id), now, body))
    except CallFailed as error:
        return {"code": error.code, "ms": error.ms}, Fault(error.code, str(error))
    return _told(answer), judge(answer.status, answer.headers)


def _told(answer: Answer) -> dict[str, Any]:
    found: dict[str, Any] = {"status": answer.status, "ms": answer.ms}
    return found | ({"body": answer.body} if answer.body else {})
