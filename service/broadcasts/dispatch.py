"""Turns the recipients of a bulk into mails, a window at a time. What the actor `emails.expand_bulk` does.

A chunk is one transaction: its mails, their messages, and how far the bulk has come. A worker that dies in the middle
of one has done nothing of it; the next goes on behind the last one that was whole. And an address is unique among the
mails of a bulk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec
import structlog
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from callboard_workers.errors import Dead, Snooze
from callboard_workers.message import Message
from callboard_workers.runtime import Runtime
from service.broadcasts import repository
from service.broadcasts.models import Bulk, BulkStatus
from service.core.errors import ServiceError
from service.emails.compose import Desk
from service.emails.insert import Mail, store
from service.emails.prepare import Draft
from service.emails.resources import Office
from service.emails.schemas import EmailRequest

log = structlog.get_logger("service.emails")

CHUNK = 250
WINDOW = 4_000
"""Mails of a bulk that are written and wait: what a pause puts off and a correction writes anew."""
LOOK_AGAIN = 1.0
LONGEST = 300.0
PAUSED = 300.0
"""Seconds until a look at what was paused while it was under way; whoever resumes makes the rest due at once."""

Make = Callable[[Draft, UUID], Message]


async def expand(id: UUID, make: Make) -> None:
    """Write mails until all recipients have one or the window is full; then come again. Raises Snooze, Dead."""
    runtime = Runtime.of_loop()
    office = Office.of(runtime)
    assert runtime.engine is not None  # noqa: S101 - the office has it
    while True:
        async with runtime.engine.begin() as connection:
            bulk = await repository.find(connection, id, None, lock=True)
            if bulk is None:
                raise Dead("there is no such bulk", {"reason": "no_such_bulk"})
            messages = await _step(connection, bulk, office.desk(bulk.tenant_id), make)
        if messages is None:
            return
        runtime.ring(messages)


async def _step(connection: AsyncConnection, bulk: Bulk, desk: Desk, make: Make) -> list[Message] | None:
    """Write the next chunk; the messages to ring for, None where there is no more to write. Raises Snooze."""
    if bulk.status == BulkStatus.CANCELED:
        return None
    if bulk.status == BulkStatus.PAUSED:
        raise Snooze(PAUSED, "the bulk is paused")
    waiting = await repository.backlog(connection, bulk.id)
    if waiting >= WINDOW:
        raise Snooze(pause(waiting, bulk.pace, bulk.period), "enough mails are written")
    rows = await repository.chunk(connection, bulk.id, bulk.next_seq, CHUNK)
    if not rows:
        return None
    return await _write(connection, bulk, desk, rows, make)


async def _write(connection: AsyncConnection, bulk: Bulk, desk: Desk, rows: Any, make: Make) -> list[Message]:
    mails: list[Mail] = []
    for row in rows:
        try:
            draft = await desk.draft(request(bulk, row))
        except ServiceError as error:
            log.warning("recipient_refused", bulk_id=str(bulk.id), seq=row["seq"], code=error.code)
            continue
        draft = msgspec.structs.replace(draft, bulk_id=bulk.id)
        mails.append((draft, msgspec.structs.replace(make(draft, bulk.tenant_id), gate=bulk.gate)))
    new = await store(connection, mails, tenant_id=bulk.tenant_id, mode=bulk.mode, request_id=bulk.request_id)
    await repository.update(
        connection,
        bulk.id,
        next_seq=rows[-1]["seq"],
        more_expanded=len(rows),
        more_refused=len(rows) - len(mails),
    )
    return [message for _, message in mails if message.id in new]


def request(bulk: Bulk, row: RowMapping) -> EmailRequest:
    """The mail of one recipient."""
    common = bulk.request
    template = msgspec.structs.replace(
        common.template,
        variables=common.template.variables | row["variables"],
        locale=row["locale"] or common.template.locale,
    )
    return EmailRequest(
        to=row["to_"],
        template=template,
        sender=common.sender,
        reply_to=common.reply_to,
        headers=common.headers,
        tags=common.tags,
        metadata=common.metadata,
        category=common.category,
        unsubscribe=common.unsubscribe,
        expires_at=common.expires_at,
        uncertain=common.uncertain,
        lane="bulk",
    )


def pause(waiting: int, pace: int | None, period: float | None) -> float:
    """Seconds until half of what waits may be gone: at once without a throttle, else as long as the throttle takes."""
    if not pace or not period:
        return LOOK_AGAIN
    return min(LONGEST, max(LOOK_AGAIN, waiting / 2 / pace * period))
