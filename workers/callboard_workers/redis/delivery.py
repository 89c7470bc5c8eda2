"""From a Celery request to a delivery, and from an outcome to the message that follows it."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_OID, UUID, uuid5

from callboard_workers.message import Delivery, Message, Priority
from callboard_workers.policy import RetryAt, Snoozed
from callboard_workers.redis.decode import moment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CONTEXT_HEADERS = frozenset(
    {
        "request_id",
        "tenant_id",
        "traceparent",
        "tracestate",
        "baggage",
        "parent_id",
        "root_id",
        "crashes",
        "snoozes",
        "ignore_result",
    }
)
"""What of a message's headers goes with it through its retries; everything else is Celery's."""


def message_id(task_id: str) -> UUID:
    """A Celery task id as a message id; any text is legal there, so what is no UUID gets a stable one."""
    try:
        return UUID(task_id)
    except ValueError:
        return uuid5(NAMESPACE_OID, task_id)


def delivery_of(
    task_id: str,
    actor: str,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    headers: Mapping[str, Any],
    *,
    queue: str,
    priority: int = 6,
    redelivered: bool = False,
) -> Delivery:
    """What `execute` needs to know about one message that arrived."""
    return Delivery(
        id=message_id(task_id),
        actor=actor,
        args=tuple(args),
        kwargs=kwargs,
        headers={name: value for name in CONTEXT_HEADERS & headers.keys() if (value := headers[name]) is not None},
        durable=headers.get("durable") is True,
        retries=headers.get("retries") or 0,
        redelivered=redelivered,
        queue=queue,
        priority=priority,
        expires_at=moment(headers.get("expires")),
    )


def following(delivery: Delivery, outcome: RetryAt | Snoozed, priority: int) -> Message:
    """The message to send after a direct delivery that is to be retried or was snoozed: same id, later."""
    snoozed = isinstance(outcome, Snoozed)
    headers: dict[str, Any] = {
        **delivery.headers,
        "retries": delivery.retries + (not snoozed),
        "snoozes": int(delivery.headers.get("snoozes") or 0) + snoozed,
    }
    return Message(
        id=delivery.id,
        actor=delivery.actor,
        args=delivery.args,
        kwargs=delivery.kwargs,
        queue=delivery.queue,
        priority=Priority.of(priority),
        delay=outcome.delay,
        expires=_left(delivery.expires_at),
        headers=headers,
    )


def _left(expires_at: dt.datetime | None) -> float | None:
    """Seconds until a moment, a little if it is over: then the message expires when it is looked at."""
    return None if expires_at is None else max(0.001, (expires_at - dt.datetime.now(dt.UTC)).total_seconds())
