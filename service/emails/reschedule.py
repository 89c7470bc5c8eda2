"""What can still be changed about a mail, and the same mail once more."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from litestar import Response, patch, post
from litestar.params import FromPath, JSONBody
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from uuid_utils.compat import uuid7

from callboard_workers.ledger.inserts import after_commit
from callboard_workers.message import Message
from service.core.errors import Conflict, Fault, Invalid, NotFound
from service.emails import examples as show
from service.emails import params, serializers, validation
from service.emails.actors import send_email
from service.emails.attachment_store import keep_again
from service.emails.models import Lane, Status
from service.emails.prepare import moment
from service.emails.resources import Office
from service.emails.schemas import EmailOut, EmailPatch
from service.emails.uncertain_policy import doubt
from service.web import Answer, Request, examples, once, require, transaction

MOVE = text("""
WITH mine AS (
    SELECT m.id FROM messages m WHERE m.id = :id AND m.tenant_id = :tenant_id AND m.state = 'queued'
    FOR NO KEY UPDATE
),
moved AS (
    UPDATE messages m
    SET due_at = greatest(:at, clock_timestamp()), rings = 0,
        ring_at = CASE WHEN m.gate IS NULL THEN greatest(:at, clock_timestamp()) ELSE 'infinity' END, admitted = false
    FROM mine WHERE m.id = mine.id
    RETURNING m.id
)
UPDATE emails e SET scheduled_at = :at, updated_at = clock_timestamp() FROM moved WHERE e.id = moved.id
RETURNING e.id
""")

_SAME = """tenant_id, mode, lane, category, sender, to_, cc, bcc, reply_to, recipients, subject, html, text,
    template_key, template_locale, template_version, template_variables, headers, tags, metadata, attachments,
    attachment_data, unsubscribable"""
COPY = text(f"""
INSERT INTO emails (id, resend_of, message_id, request_id, created_at, updated_at, {_SAME})
SELECT :id, e.id, :message_id, :request_id, :now, :now, {_SAME} FROM emails e
WHERE e.id = :original AND e.tenant_id = :tenant_id
""")  # noqa: S608 (names of our own columns)


@patch(
    "/emails/{email_id:str}",
    guards=[require("emails:send")],
    status_code=200,
    summary="Reschedule a mail",
    opt=examples(body=show.RESCHEDULE, answer=show.EMAIL),
)
async def reschedule(request: Request, email_id: FromPath[str], data: JSONBody[EmailPatch]) -> EmailOut:
    """Send a mail that still waits at another time; null: now. One that is being sent, or was, answers 409."""
    id, tenant_id = params.uuid_of(email_id), request.user.tenant_id
    async with transaction(request) as session:
        connection = await session.connection()
        mail = await _found(connection, tenant_id, id)
        at = _time(data.scheduled_at, mail)
        values = {"id": id, "tenant_id": tenant_id, "at": at}
        if (await connection.execute(MOVE, values)).one_or_none() is None:
            raise Conflict(f"The mail is {mail.status}; only one that waits can be rescheduled.", code="not-waiting")
        if data.scheduled_at is None:
            after_commit(session, request.app.state.runtime.ring, [_doorbell(id, mail.lane, tenant_id)])
        return await _found(connection, tenant_id, id)


@post(
    "/emails/{email_id:str}/resend",
    guards=[require("emails:send")],
    status_code=202,
    summary="Send a mail once more",
    opt=examples(answer=show.RESENT),
)
async def resend(request: Request, email_id: FromPath[str]) -> Response[EmailOut]:
    """Store the same mail as a new one, with an id and a Message-ID of its own, and send it: a second copy.

    One that is still under way answers 409. The first mail stays what it is; the doubt about one that is `uncertain` is
    settled by evidence or `POST /v1/dead-letters/resolve`, not by this.
    """
    original = params.uuid_of(email_id)

    async def work(session: AsyncSession) -> Answer:
        told = await send_once_more(request, session, original)
        return Answer(202, told, {"Location": f"/v1/emails/{told.id}"})

    return await once(request, work)


async def send_once_more(request: Request, session: AsyncSession, original: UUID) -> EmailOut:
    """Store a copy of the caller's mail `original` and enqueue it, in the transaction of `session`.

    Raises NotFound, and Conflict for a mail that is still under way.
    """
    connection, tenant_id = await session.connection(), request.user.tenant_id
    mail = await _found(connection, tenant_id, original)
    if not Status(mail.status).terminal:
        raise Conflict(f"The mail is {mail.status}: it is still to be sent by itself.", code="not-resendable")
    id = uuid7()
    values = {
        "id": id,
        "original": original,
        "tenant_id": tenant_id,
        "message_id": f"<{id}@{Office.of(request.app.state.runtime).house.host}>",
        "request_id": request.request_id,
        "now": moment(id),
    }
    await keep_again(connection, original)
    await connection.execute(COPY, values)
    doorbell = msgspec.structs.replace(_doorbell(id, mail.lane, tenant_id), uncertain=await doubt(connection, original))
    await request.app.state.runtime.enqueue(session, doorbell)
    return await _found(connection, tenant_id, id)


def _doorbell(id: UUID, lane: str, tenant_id: UUID) -> Message:
    made: Message = send_email.options(id=id, priority=Lane(lane).priority, tenant_id=tenant_id).message(id)
    return made


def _time(wanted: datetime | None, mail: EmailOut) -> Any:
    now = datetime.now(UTC)
    if wanted is None:
        return now
    faults = list(validation.time_faults(wanted, None, now))
    if not faults and mail.expires_at is not None and wanted >= mail.expires_at:
        faults = [Fault("/scheduled_at", f"is not before the mail expires, at {mail.expires_at:%Y-%m-%dT%H:%M:%SZ}.")]
    if faults:
        raise Invalid(faults)
    return wanted.astimezone(UTC)


async def _found(connection: AsyncConnection, tenant_id: UUID, id: UUID) -> EmailOut:
    mail = await serializers.one(connection, tenant_id, id)
    if mail is None:
        raise NotFound("There is no such mail.", code="unknown-email")
    return mail
