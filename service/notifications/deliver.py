"""Delivers a notification to everybody it reaches."""

from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.actors.actor import actor
from callboard_workers.context import current
from callboard_workers.errors import Dead, NoRuntime
from callboard_workers.message import Message, Priority
from callboard_workers.policy import Backoff
from callboard_workers.runtime import Runtime
from service.core.errors import ServiceError
from service.emails.resources import Office
from service.feeds.signals import Herald, word
from service.notifications import fanout
from service.notifications.email import Told, letter
from service.notifications.fanout_sql import Letter
from service.notifications.models import ACTOR, QUEUE
from service.notifications.prepare import Order
from service.settings import Settings

_TOLD = text(
    "SELECT id, tenant_id, mode, type, category, critical, data, email, request_id, 'email' = ANY(channels) AS mails,"
    " cardinality(topics) > 0 OR organization_id IS NOT NULL AS wide FROM notifications WHERE id = :id"
)


@actor(name=ACTOR, queue=QUEUE, max_retries=50, max_crashes=20, backoff=Backoff(min=1, max=300), time_limit=3600)
async def fan_out(notification_id: UUID) -> None:
    """Deliver a notification, chunk by chunk; whoever comes after a crash goes on where the last chunk ended."""
    runtime, context = Runtime.of_loop(), current()
    engine = engine_of(runtime)
    mail = await _letter(runtime, engine, notification_id)
    total = await fanout.begin(engine, notification_id)
    while (served := await fanout.serve(engine, notification_id, mail)) is not None:
        Herald.of(runtime).say(word(served.users, served.low, served.high))
        if mail is not None:
            ring(runtime, mail, served.mails)
        await context.progress(served.done, total)
        if served.over:
            break


def message(made: Order) -> Message:
    """The message that delivers a notification once it is stored: same id; a critical one goes first."""
    priority = Priority.CRITICAL if made.asked.critical else Priority.NORMAL
    return fan_out.options(id=made.id, priority=priority, tenant_id=made.tenant_id).message(made.id)


def ring(runtime: Runtime, mail: Letter, ids: list[UUID]) -> None:
    """Ring for the mails of a chunk, which is committed."""
    headers = msgspec.json.decode(mail.headers, type=dict[str, str])
    one = Message(actor=mail.actor, queue=mail.queue, priority=Priority.of(mail.priority), headers=headers)
    if ids:
        runtime.ring([msgspec.structs.replace(one, id=id) for id in ids])


def engine_of(runtime: Runtime) -> AsyncEngine:
    """The engine of a runtime. Raises NoRuntime where it has none."""
    if runtime.engine is None:
        raise NoRuntime("notifications are in Postgres: this Runtime was made without an engine")
    return runtime.engine


async def _letter(runtime: Runtime, engine: AsyncEngine, id: UUID) -> Letter | None:
    """The mail of a notification; None where it has none, or nothing may be sent."""
    async with engine.connect() as connection:
        row = (await connection.execute(_TOLD, {"id": id})).mappings().one_or_none()
    if row is None:
        raise Dead("there is no such notification", {"reason": "no_such_notification"})
    settings: Settings = runtime.state["settings"]
    if not row["mails"] or (row["mode"] == "live" and not settings.mail_send):
        return None
    told = msgspec.convert({name: row[name] for name in Told.__struct_fields__}, Told)
    try:
        office = Office.of(runtime)
        return await letter(told, office.desk(told.tenant_id), office.house.host)
    except ServiceError as error:
        raise Dead(f"no mail can be made of it: {error.detail}", {"reason": "content_refused"}) from error
