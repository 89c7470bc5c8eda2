"""Emails: by recipient, status, template, broadcast or day; one with every attempt, and what can be done about it."""

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from callboard_workers.ledger.schema import State
from service.console.messages import CANCELED, Question, confirmed
from service.console.pages import FRAME, ask, day, page, to, uuid_or_none
from service.console.visiting import form, question
from service.core.errors import Conflict, NotFound
from service.emails import params, serializers
from service.emails.events import events
from service.emails.load import content as stored_content
from service.emails.models import Status
from service.emails.reschedule import send_once_more
from service.emails.resources import Office
from service.mail.addresses import AddressRefused, parse_address
from service.suppressions.matching import TOPIC
from service.templates import render
from service.templates.tenant import repository
from service.web import Answer, Request
from service.web.idempotency import Once, once_by

LIMIT = 50
GONE = "There is no such email: it may belong to another tenant, or be deleted by now."
STATUSES = [status.value for status in Status]


SUPPRESSING = text(f"""
SELECT s.address, s.reason, s.category FROM emails e
JOIN suppressions s ON s.tenant_id = e.tenant_id AND s.mode = e.mode
    AND s.address = ANY (ARRAY(SELECT lower(r COLLATE "C") COLLATE "default" FROM unnest(e.recipients) AS r))
    AND (s.category IS NULL OR s.category = {TOPIC})
WHERE e.id = :id AND e.tenant_id = :tenant_id ORDER BY s.address LIMIT 20
""")  # noqa: S608 (our own SQL)
FILTERS = ("q", "status", "template", "bulk", "since", "until")


@get("/emails")
async def listing(request: Request) -> Response[Any]:
    """List emails, newest first, by recipient, request, status, template, broadcast and days; `q` may be an id."""
    given = question(request)
    asked = {name: given.get(name, "") for name in FILTERS}
    if asked["q"].startswith("em_"):
        return to(f"/console/emails/{params.uuid_of(asked['q']).hex}")
    before = uuid_or_none(given.get("before"))
    async with request.app.state.engine.connect() as connection:
        found = await serializers.page(
            connection, request.user.tenant_id, _filters(asked), before=before, limit=LIMIT + 1
        )
        own = [row["key"] for row in await repository.shown(connection, request.user.tenant_id)]
    return page(
        request, "emails.html", mails=found[:LIMIT], asked=asked, statuses=STATUSES, before=before,
        query=[(name, value) for name, value in asked.items() if value],
        more=found[LIMIT - 1].task_id if len(found) > LIMIT else None,
        templates=sorted({*own, *(info.key for info in render.templates())}),
    )  # fmt: skip


def _filters(asked: Mapping[str, str]) -> serializers.Filters:
    """Read the filters of a list; one that cannot be read matches nothing, or is left open where it is a choice."""
    q, status, until = asked["q"], asked["status"], day(asked["until"])
    return serializers.Filters(
        status=Status(status) if status in STATUSES else None,
        to=_address(q) if "@" in q else None,
        request_id=q if q and "@" not in q else None,
        template=asked["template"] or None,
        bulk=(uuid_or_none(asked["bulk"].removeprefix("bk_")) or UUID(int=0)) if asked["bulk"] else None,
        created_after=day(asked["since"]),
        created_before=None if until is None else until + timedelta(days=1),
    )


def _address(text: str) -> str:
    """Read an address as emails store it: the domain in lower case, the part before it as it is written."""
    try:
        return parse_address(text, private=True).addr_spec
    except AddressRefused:
        return text


@get("/emails/{id:str}")
async def look(request: Request, id: FromPath[str]) -> Response[str]:
    """Show an email, its timeline and what it looks like."""
    mail_id, tenant = params.uuid_of(f"em_{id.removeprefix('em_')}"), request.user.tenant_id
    async with request.app.state.engine.connect() as connection:
        mail = await serializers.one(connection, tenant, mail_id)
        happened = await events(connection, tenant, mail_id)
        where = {"id": mail_id, "tenant_id": tenant}
        reads = request.user.may("suppressions:read")
        suppressing = (await connection.execute(SUPPRESSING, where)).all() if reads else []
    if mail is None or happened is None:
        raise NotFound(GONE)
    return page(
        request, "email.html", mail=mail, key=mail_id.hex, events=happened, press=secrets.token_hex(16),
        suppressing=suppressing,
    )  # fmt: skip


@get("/emails/{id:str}/frame")
async def frame(request: Request, id: FromPath[str]) -> Response[str]:
    """Answer the HTML of an email, or its text, for a frame in which nothing runs and nothing is loaded."""
    mail_id = params.uuid_of(f"em_{id}")
    async with request.app.state.engine.connect() as connection:
        if await serializers.one(connection, request.user.tenant_id, mail_id) is None:
            raise NotFound(GONE)
    office = Office.of(request.app.state.runtime)
    stored = await office.loader.read(mail_id)
    if stored is None:
        raise NotFound(GONE)
    made = await stored_content(stored, office.library, office.links.link(stored.reader))
    if made.html is None:
        return Response(made.text or "", media_type="text/plain", headers=FRAME)
    return Response(made.html, media_type="text/html", headers=FRAME)


@post("/emails/{id:str}/cancel", status_code=200)
async def cancel(request: Request, id: FromPath[str]) -> Response[Any]:
    """Cancel an email that waits, once confirmed."""
    asked, mail_id = await form(request), params.uuid_of(f"em_{id}")
    if not confirmed(asked):
        words, label = "It will not be sent. This cannot be undone.", "Cancel the email"
        return await _ask(request, mail_id, "cancel", title="Cancel this email?", words=words, label=label)
    done = await request.app.state.runtime.ledger.cancel(mail_id, request.user.tenant_id)
    return to(f"/console/emails/{id}?done={CANCELED.get(done, 'too-late')}")


@post("/emails/{id:str}/requeue", status_code=200)
async def requeue(request: Request, id: FromPath[str]) -> Response[Any]:
    """Requeue an email that failed, or, once confirmed, one whose outcome is unknown: a second copy may arrive."""
    asked, mail_id, user = await form(request), params.uuid_of(f"em_{id}"), request.user
    if not confirmed(asked) and await _status(request, mail_id) is Status.UNCERTAIN:
        words = "Nobody knows whether the first copy arrived: recipients may get the email twice."
        title, label = "Send this email again?", "Send again"
        return await _ask(request, mail_id, "requeue", title=title, words=words, label=label)
    moved = await request.app.state.runtime.ledger.requeue(
        [mail_id], by=user.key, tenant_id=user.tenant_id, reason="console"
    )
    return to(f"/console/emails/{id}?done={'requeued&n=1' if moved else 'nothing'}")


@post("/emails/{id:str}/resend", status_code=200)
async def resend(request: Request, id: FromPath[str]) -> Response[Any]:
    """Send a copy of an email, as a new one; a button that is pressed twice does it once."""
    asked = await form(request)
    original = params.uuid_of(f"em_{id}")

    async def work(session: AsyncSession) -> Answer:
        try:
            made = (await send_once_more(request, session, original)).id
        except Conflict:
            return Answer(303, f"{id}?done=under-way")
        return Answer(303, f"{params.uuid_of(made).hex}?done=resent")

    # a key of the API has no line break, so the two never meet
    key = "console\n" + asked.get("press", [""])[0][:64]
    fingerprint = hashlib.sha256(id.encode()).digest()
    mark = Once(request.user.tenant_id, key, fingerprint, request.app.state.settings.idempotency_ttl)
    answer, _ = await once_by(request, mark, work)
    if answer.status != 303:
        raise NotFound(GONE)
    return to(f"/console/emails/{msgspec.json.decode(msgspec.json.encode(answer.body), type=str)}")


@post("/emails/{id:str}/resolve", status_code=200)
async def resolve(request: Request, id: FromPath[str]) -> Response[Any]:
    """Record whether an email whose outcome is unknown was delivered, once confirmed."""
    asked = await form(request)
    mail_id, user, state = params.uuid_of(f"em_{id}"), request.user, request.app.state
    delivered = asked.get("as") == ["sent"]
    if not confirmed(asked):
        outcome = "delivered" if delivered else "not delivered"
        words = f"It will be recorded as {outcome}. This cannot be undone, and nothing is sent."
        fields, label = [("as", "sent" if delivered else "failed")], f"Mark as {outcome}"
        return await _ask(request, mail_id, "resolve", title=f"{label}?", words=words, label=label, fields=fields)
    async with state.engine.begin() as connection:
        moved = await state.runtime.ledger.resolve(
            connection, [mail_id], State.DONE if delivered else State.DEAD, by=user.key, tenant_id=user.tenant_id,
            reason="console",
        )  # fmt: skip
    word = "delivered" if delivered else "not-delivered"
    return to(f"/console/emails/{id}?done={word if moved else 'nothing'}")


async def _ask(
    request: Request, id: UUID, verb: str, *, title: str, words: str, label: str, fields: Sequence[tuple[str, str]] = ()
) -> Response[str]:
    """Ask for the confirmation of a step on one email, which is named. Raises NotFound."""
    async with request.app.state.engine.connect() as connection:
        mail = await serializers.one(connection, request.user.tenant_id, id)
    if mail is None:
        raise NotFound(GONE)
    place, name = f"/console/emails/{id.hex}", mail.subject or (mail.template.key if mail.template else "Email")
    about = f"“{name}” to {', '.join([*mail.to, *mail.cc, *mail.bcc])}"
    return ask(request, Question(
        title=title, words=[about, words], action=f"{place}/{verb}", label=label, back=place, fields=fields
    ))  # fmt: skip


async def _status(request: Request, id: UUID) -> Status | None:
    async with request.app.state.engine.connect() as connection:
        mail = await serializers.one(connection, request.user.tenant_id, id)
    return None if mail is None else Status(mail.status)


handlers = [listing, look, frame, cancel, requeue, resend, resolve]
