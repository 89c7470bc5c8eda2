"""Mails: found by recipient, status or id; one with every attempt and the server's reply, and what to do about it."""

import hashlib
import secrets
from typing import Any

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from sqlalchemy.ext.asyncio import AsyncSession

from service.console.pages import CANCELED, HEADERS, page, to, uuid_or_none
from service.console.visiting import form, question
from service.emails import parameters, views
from service.emails.changes import send_once_more
from service.emails.events import events
from service.emails.models import Status
from service.emails.office import Office
from service.emails.stored import content as stored_content
from service.errors import Conflict, NotFound
from service.web import Answer, Request
from service.web.idempotency import Once, once_by
from workers.ledger.schema import State

LIMIT = 50
FRAME = HEADERS | {
    "Content-Security-Policy": "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "frame-ancestors 'self'"
}
STATUSES = [status.value for status in Status]


@get("/emails")
async def listing(request: Request) -> Response[Any]:
    """List mails, newest first; `q` is a recipient, the id of a mail or of a request."""
    asked = question(request)
    q, status = asked.get("q", ""), asked.get("status", "")
    if q.startswith("em_"):
        return to(f"/console/emails/{parameters.uuid_of(q).hex}")
    where = views.Filters(
        status=Status(status) if status in STATUSES else None,
        to=q.lower() if "@" in q else None,
        request_id=q if q and "@" not in q else None,
    )
    before = uuid_or_none(asked.get("before"))
    async with request.app.state.engine.connect() as connection:
        found = await views.page(connection, request.user.tenant_id, where, before=before, limit=LIMIT + 1)
    more = found[LIMIT - 1].task_id if len(found) > LIMIT else None
    return page(
        request, "emails.html", mails=found[:LIMIT], q=q, status=status, statuses=STATUSES, more=more, before=before
    )


@get("/emails/{id:str}")
async def look(request: Request, id: FromPath[str]) -> Response[str]:
    """Show a mail, its timeline and what it looks like."""
    mail_id, tenant = parameters.uuid_of(f"em_{id.removeprefix('em_')}"), request.user.tenant_id
    async with request.app.state.engine.connect() as connection:
        mail = await views.one(connection, tenant, mail_id)
        happened = await events(connection, tenant, mail_id)
    if mail is None or happened is None:
        raise NotFound("There is no such mail: it may be another tenant's, or forgotten by now.")
    values = {"mail": mail, "key": mail_id.hex, "events": happened, "press": secrets.token_hex(16)}
    return page(request, "email.html", **values)


@get("/emails/{id:str}/frame")
async def frame(request: Request, id: FromPath[str]) -> Response[str]:
    """Answer the HTML of a mail, or its text, for a frame in which nothing runs and nothing is loaded."""
    mail_id = parameters.uuid_of(f"em_{id}")
    async with request.app.state.engine.connect() as connection:
        if await views.one(connection, request.user.tenant_id, mail_id) is None:
            raise NotFound("There is no such mail.")
    office = Office.of(request.app.state.runtime)
    stored = await office.loader.read(mail_id)
    if stored is None:
        raise NotFound("There is no such mail.")
    made = await stored_content(stored, office.library, office.links.link(stored))
    if made.html is None:
        return Response(made.text or "", media_type="text/plain", headers=FRAME)
    return Response(made.html, media_type="text/html", headers=FRAME)


@post("/emails/{id:str}/cancel", status_code=200)
async def cancel(request: Request, id: FromPath[str]) -> Response[Any]:
    """Cancel a mail that waits."""
    await form(request)
    mail_id = parameters.uuid_of(f"em_{id}")
    done = await request.app.state.runtime.ledger.cancel(mail_id, request.user.tenant_id)
    return to(f"/console/emails/{id}?done={CANCELED.get(done, 'too-late')}")


@post("/emails/{id:str}/requeue", status_code=200)
async def requeue(request: Request, id: FromPath[str]) -> Response[Any]:
    """Try a mail again that failed, or is in doubt: then a second copy may arrive."""
    await form(request)
    mail_id, user = parameters.uuid_of(f"em_{id}"), request.user
    moved = await request.app.state.runtime.ledger.requeue(
        [mail_id], by=user.key, tenant_id=user.tenant_id, reason="console"
    )
    return to(f"/console/emails/{id}?done={'requeued' if moved else 'nothing'}")


@post("/emails/{id:str}/resend", status_code=200)
async def resend(request: Request, id: FromPath[str]) -> Response[Any]:
    """Send the same mail once more, as a new one; a button that is pressed twice does it once."""
    asked = await form(request)
    original = parameters.uuid_of(f"em_{id}")

    async def work(session: AsyncSession) -> Answer:
        try:
            made = (await send_once_more(request, session, original)).id
        except Conflict:
            return Answer(303, f"{id}?done=under-way")
        return Answer(303, f"{parameters.uuid_of(made).hex}?done=resent")

    # a key of the API has no line break, so the two never meet
    key = "console\n" + asked.get("press", [""])[0][:64]
    fingerprint = hashlib.sha256(id.encode()).digest()
    mark = Once(request.user.tenant_id, key, fingerprint, request.app.state.settings.idempotency_ttl)
    answer, _ = await once_by(request, mark, work)
    if answer.status != 303:
        raise NotFound("There is no such mail: it may be another tenant's, or forgotten by now.")
    return to(f"/console/emails/{msgspec.json.decode(msgspec.json.encode(answer.body), type=str)}")


@post("/emails/{id:str}/resolve", status_code=200)
async def resolve(request: Request, id: FromPath[str]) -> Response[Any]:
    """Say what became of a mail that is in doubt: it arrived, or it did not."""
    asked = await form(request)
    mail_id, user, state = parameters.uuid_of(f"em_{id}"), request.user, request.app.state
    to_state = State.DONE if asked.get("as") == ["sent"] else State.DEAD
    async with state.engine.begin() as connection:
        moved = await state.runtime.ledger.resolve(
            connection, [mail_id], to_state, by=user.key, tenant_id=user.tenant_id, reason="console"
        )
    return to(f"/console/emails/{id}?done={'resolved' if moved else 'nothing'}")


handlers = [listing, look, frame, cancel, requeue, resend, resolve]
