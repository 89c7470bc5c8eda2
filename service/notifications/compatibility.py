"""The task names by which Celery clients knew the service before, served on Celery's default queue.

A Celery client has no API key: it acts for the tenant of CELERY_TENANT, or for the oldest one. A task that is
delivered again, because its worker died before it said that it was done, tells nobody twice: its id is the key.
"""

from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from callboard_workers.actors.actor import actor
from callboard_workers.context import current
from callboard_workers.errors import Dead
from callboard_workers.runtime import Runtime
from service.core.errors import Invalid, ServiceError
from service.core.ids import email_id, notification_id
from service.db.engine import is_away, is_older
from service.db.tenancy import mode_of
from service.emails import builtin_emails, in_process
from service.emails.resources import Office
from service.emails.schemas import EmailRequest
from service.notifications import email
from service.notifications.deliver import engine_of
from service.notifications.deliver import message as delivery
from service.notifications.models import notifications
from service.notifications.prepare import COLUMNS, order
from service.notifications.schemas import Channel, NotificationRequest, Recipients
from service.settings import Settings, SettingsError

STOCK = "celery"
"""Where a Celery client sends that was told of no queue."""
KEPT = 3_600.0  # seconds for which Celery's result backend keeps an answer
WINDOW = 86_400.0  # seconds in which a task that is delivered again tells nobody twice

_TENANT = text("SELECT id FROM tenants WHERE :name = '' OR name = :name ORDER BY id LIMIT 1")
_MISSING = text("SELECT EXISTS (SELECT FROM tenants) AND NOT EXISTS (SELECT FROM tenants WHERE name = :name)")


class Extra(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the tasks that notify take by name, beside whom and what; by inbox and mail unless `channels` differs."""

    type: str = "notification"
    data: dict[str, Any] | None = None
    channels: list[Channel] | None = None
    category: str | None = None
    dedup_key: str | None = None


@actor(name="notifications.send_notification", queue=STOCK, result=KEPT)
async def send_notification(user_id: str | int, title: str, message: str = "", **extra: Any) -> dict[str, str]:
    """Notify one user; `extra` is an Extra. Answers the notification's id."""
    return await _notify(Recipients(users=[str(user_id)]), title, message, extra)


@actor(name="notifications.send_bulk_notifications", queue=STOCK, result=KEPT)
async def send_bulk_notifications(
    user_ids: list[str | int], title: str, message: str = "", **extra: Any
) -> dict[str, str]:
    """Notify many users, each once; `extra` is an Extra. Answers the notification's id."""
    return await _notify(Recipients(users=[str(id) for id in user_ids]), title, message, extra)


@actor(name="notifications.broadcast_notification", queue=STOCK, result=KEPT)
async def broadcast_notification(
    organization_id: str | int, title: str, message: str = "", **extra: Any
) -> dict[str, str]:
    """Notify the members of an organization, each once; `extra` is an Extra. Answers the notification's id."""
    return await _notify(Recipients(organization=str(organization_id)), title, message, extra)


@actor(name="notifications.send_email", queue=STOCK, result=KEPT)
async def send_email(
    to: str | list[str] | None = None,
    subject: str | None = None,
    message: str | None = None,
    html: str | None = None,
    recipient: str | list[str] | None = None,
) -> dict[str, str]:
    """Queue an email: plain text in the layout of this service, or the caller's own HTML. Return its id.

    `recipient` is another name of `to`. Raises Dead naming every argument that is missing.
    """
    to = recipient if to is None else to
    given = {"to": to, "subject": subject, "message": message}
    if to is None or subject is None or message is None:
        lacking = ", ".join(f"`{name}`" for name, value in given.items() if value is None)
        raise Dead(f"notifications.send_email needs {lacking}", {"reason": "invalid"})
    key = f"celery:{current().id}"
    if html is None:
        wanted = builtin_emails.custom(to, subject=subject, message=message)
        request = EmailRequest(to=to, template=wanted.template, dedup_key=key)
    else:
        request = EmailRequest(to=to, subject=subject, text=message, html=html, dedup_key=key)
    async with engine_of(Runtime.of_loop()).begin() as connection:
        tenant_id = await _tenant(connection)
        try:
            id = await in_process.enqueue(connection, request, tenant_id=tenant_id)
        except ServiceError as error:
            raise refused(error) from error
    return {"email_id": email_id(id), "task_id": str(id)}


@actor(name="emails.process_queue", queue=STOCK, result=KEPT)
async def process_queue() -> dict[str, int]:
    """Ring for whatever is due and not taken up, as the sweeper of every worker does each second. Harmless."""
    runtime = Runtime.of_loop()
    swept = await runtime.ledger.sweep(runtime.ring)
    return {name: len(getattr(swept, name)) for name in ("rung", "reclaimed", "expired")}


async def _notify(to: Recipients, title: str, message: str, extra: dict[str, Any]) -> dict[str, str]:
    try:
        told = msgspec.convert(extra, Extra)
    except msgspec.ValidationError as error:
        raise Dead(f"the arguments by name: {error}", {"reason": "invalid"}) from None
    asked = NotificationRequest(
        type=told.type,
        recipients=to,
        data={**(told.data or {}), "title": title, **({"body": message} if message else {})},
        channels=told.channels or ["inbox", "email"],
        category=told.category,
        dedup_key=told.dedup_key or f"celery:{current().id}",
        dedup_window=WINDOW,
    )
    return await _accept(asked)


async def _accept(asked: NotificationRequest) -> dict[str, str]:
    """Store a notification and its message in one transaction. Raises Dead naming every fault."""
    async with engine_of(Runtime.of_loop()).begin() as connection:
        tenant_id = await _tenant(connection)
        try:
            made = order(asked, tenant_id=tenant_id, mode=mode_of(tenant_id), request_id=current().request_id)
            if "email" in made.channels:
                await email.check(made.told(), Office.of_loop().desk(tenant_id))
        except ServiceError as error:
            raise refused(error) from error
        values = dict(zip((name for name, _ in COLUMNS), made.row(), strict=True))
        await connection.execute(insert(notifications).values(values))
        await Runtime.enqueue_from_loop(connection, delivery(made))
    return {"notification_id": notification_id(made.id), "task_id": str(made.id)}


def refused(error: ServiceError) -> Dead:
    """What a refusal means for a task: it is final, and says why."""
    faults = error.errors if isinstance(error, Invalid) else ()
    told = "; ".join(f"{fault.pointer}: {fault.message}" for fault in faults[:10])
    return Dead(told or error.detail, {"reason": error.code})


async def _tenant(connection: AsyncConnection) -> UUID:
    """The tenant that a Celery client acts for: one that is created later changes nothing. Raises Dead without one."""
    if (given := current().tenant_id) is not None:
        return given
    settings: Settings = Runtime.of_loop().state["settings"]
    found: UUID | None = (await connection.execute(_TENANT, {"name": settings.celery_tenant})).scalar_one_or_none()
    if found is None:
        what = f"there is no tenant {settings.celery_tenant!r}" if settings.celery_tenant else "there is no tenant yet"
        raise Dead(f"{what}: `callboard keys create --tenant NAME` creates one", {"reason": "no_tenant"})
    return found


async def check_tenant(engine: AsyncEngine, name: str) -> None:
    """Refuse a CELERY_TENANT that names no tenant, before its tasks fail one by one. Raises SettingsError.

    Before the first tenant is created, and while Postgres does not respond, nothing is refused.
    """
    if not name:
        return
    try:
        async with engine.connect() as connection:
            missing = (await connection.execute(_MISSING, {"name": name})).scalar_one()
    except Exception as error:
        if not (is_away(error) or is_older(error)):
            raise
        return
    if missing:
        raise SettingsError(
            [f"CELERY_TENANT: there is no tenant {name!r}; `callboard keys list` shows those there are"]
        )
