"""What a notification says by mail: the same rules as for any mail, checked when it is accepted and made in the worker.

It is drafted once, to a stand-in; the chunk's statement puts each reader's address, locale and id in its place.
"""

from typing import Any
from uuid import UUID

import msgspec

from callboard_workers.ledger import rows
from service.core.errors import Fault, Invalid
from service.emails.actors import send_email
from service.emails.compose import Desk
from service.emails.insert_columns import row
from service.emails.models import Lane
from service.emails.schemas import EmailRequest
from service.mail.characters import BIDI, CONTROL
from service.notifications.fanout_sql import Letter
from service.notifications.schemas import MailContent
from service.templates.schemas import TemplateRef

STAND_IN = "reader@example.com"


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a mail is made of; the fields are columns of the table."""

    id: UUID
    tenant_id: UUID
    mode: str
    type: str
    category: str | None
    critical: bool
    data: dict[str, Any]
    wide: bool
    email: MailContent | None
    request_id: str | None


async def letter(told: Told, desk: Desk, host: str) -> Letter:
    """Make the mail of a notification. Raises Invalid naming every fault, Forbidden."""
    made = await desk.draft(request(told))
    how = send_email.options(id=made.id, priority=made.lane.priority, tenant_id=told.tenant_id)
    message = how.message(made.id)
    values = dict(zip((name for name, _ in rows.COLUMNS), rows.row(message), strict=True))
    return Letter(
        row=row(made, told.tenant_id, told.mode, told.request_id),
        host=host,
        topic=made.category or (Lane.BULK.value if made.lane is Lane.BULK else None),
        actor=message.actor,
        queue=message.queue,
        priority=message.priority.number,
        args=values["args"],
        stand_in=str(made.id),
        headers=values["headers"],
        request_id=told.request_id,
        max_crashes=message.max_crashes,
        uncertain=message.uncertain,
    )


async def check(told: Told, desk: Desk) -> None:
    """Raise Invalid for what keeps the mail from being made, with pointers into the notification's request."""
    try:
        await desk.draft(request(told))
    except Invalid as error:
        where = "/email" if told.email is not None else "/data"
        raise Invalid([Fault(f"{where}{fault.pointer}", fault.message) for fault in error.errors]) from None


def request(told: Told) -> EmailRequest:
    """The mail as a request; what many get goes after what few wait for."""
    lane = Lane.CRITICAL if told.critical else Lane.BULK if told.wide else Lane.DEFAULT
    content = told.email or plain(told.type, told.data)
    return EmailRequest(
        to=STAND_IN,
        subject=content.subject,
        html=content.html,
        text=content.text,
        template=content.template,
        category=told.category,
        lane=lane.value,
        metadata={"notification_id": f"no_{told.id.hex}"},
    )


def plain(type: str, data: dict[str, Any]) -> MailContent:
    """The mail of a notification that says nothing of its mail: its title, body and url, or the words of its type."""
    title = one_line(data.get("title")) or words(type)
    body = data.get("body") or data.get("message")
    variables: dict[str, Any] = {"subject": title, "message": body if isinstance(body, str) else title}
    url = data.get("url")
    if isinstance(url, str) and url.startswith(("http://", "https://")):
        variables["action_url"] = url
    return MailContent(template=TemplateRef(key="custom", variables=variables))


def words(type: str) -> str:
    """A type as words: `comment.created` is "Comment created"."""
    found = type.replace(".", " ").replace("_", " ").replace("-", " ").replace(":", " ").strip()
    return found[:1].upper() + found[1:]


def one_line(given: object) -> str:
    """A title as one short line that may be a subject, whatever people wrote into it; empty where there is none."""
    if not isinstance(given, str):
        return ""
    plain = BIDI.sub("", CONTROL.sub(" ", given)).replace("=?", "= ?")  # no encoded-word (RFC 2047) begins there
    return " ".join(plain.split())[:200]
