"""What the emails slice is asked: send, look, list, cancel."""

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar
from uuid import UUID

from litestar import Response, Router, get, post
from litestar.params import FromPath, JSONBody, QueryParameter
from sqlalchemy.ext.asyncio import AsyncConnection

from callboard_workers.ledger.operations import Canceling
from service.core.errors import Conflict, NotFound
from service.emails import examples as show
from service.emails import params, serializers
from service.emails.actors import message
from service.emails.attachment_store import PATIENCE, keep
from service.emails.batch.routes import send_batch
from service.emails.dedup_window import release
from service.emails.events import events, story
from service.emails.insert_columns import COLUMNS, row
from service.emails.load import content as stored_content
from service.emails.models import Status
from service.emails.reports import api as inbound
from service.emails.reschedule import reschedule, resend
from service.emails.resources import Office
from service.emails.schemas import EmailOut, EmailPage, EmailRequest, EventList
from service.emails.test_email import TrialEmailOut, default_recipient, read_trial, trial_letter
from service.templates.content_response import framed
from service.templates.examples import CONTENT
from service.templates.schemas import Content
from service.web import (
    Accepted,
    Answer,
    Cursor,
    Limit,
    Outcome,
    Pager,
    Request,
    Submission,
    Table,
    accept,
    examples,
    large_body,
    preferred_wait,
    require,
    wait_for,
)

__all__ = ["routers", "story"]

T = TypeVar("T")
EmailTo = Annotated[
    str | None,
    QueryParameter(name="email_to", required=False, description="The address that the test email is sent to."),
]
Read = Callable[[AsyncConnection, UUID, UUID], Awaitable[T | None]]

TABLE = Table("emails", COLUMNS)
Status_ = Annotated[str | None, QueryParameter(required=False, description="One status.")]
To = Annotated[str | None, QueryParameter(required=False, description="One address, among to, cc and bcc.")]
Exact = Annotated[str | None, QueryParameter(required=False, description="Exactly this.")]
Time = Annotated[str | None, QueryParameter(required=False, description="An RFC 3339 time with its offset.")]


@post(
    "/emails",
    guards=[require("emails:send")],
    status_code=202,
    summary="Send a mail",
    opt=examples(body=show.REQUEST, answer=show.EMAIL) | large_body(),
)
async def send(request: Request, data: JSONBody[EmailRequest]) -> Response[EmailOut]:
    """Accept a mail. 202 means that it is stored and will be sent, whatever happens to this service.

    With `Prefer: wait=20` the answer is held until the mail is sent or given up (200), or the wait is over (202).
    """
    got = await _accept(request, data, _answer)
    if got.outcome is Outcome.RECORD_CONFLICT:
        earlier = await _earlier(request, data.dedup_key or "")
        if earlier is not None:
            return earlier
        got = await _accept(request, data, _answer)
    if got.outcome is Outcome.RECORD_CONFLICT:
        raise Conflict("Another mail is just taking this dedup_key; try again.", headers={"Retry-After": "1"})
    seconds = preferred_wait(request)
    if seconds and got.answer.status == 202:
        return await _waited(request, got, seconds)
    return got.answer.response(replayed=got.outcome is Outcome.REPLAYED)


@get("/emails", guards=[require("emails:read")], summary="List mails, newest first", opt=examples(answer=show.PAGE))
async def listing(
    request: Request,
    *,
    limit: Limit = None,
    cursor: Cursor = None,
    status: Status_ = None,
    to: To = None,
    tag: Exact = None,
    template: Exact = None,
    bulk: Exact = None,
    request_id: Exact = None,
    created_after: Time = None,
    created_before: Time = None,
) -> EmailPage:
    """List this tenant's mails. `created_after` is inclusive, `created_before` is not."""
    filters = params.filters(
        status=status,
        to=to,
        tag=tag,
        template=template,
        bulk=bulk,
        request_id=request_id,
        created_after=created_after,
        created_before=created_before,
    )
    pager = Pager(request, limit, cursor, filters=filters.given())
    before = UUID(pager.after[0]) if pager.after else None
    async with request.app.state.engine.connect() as connection:
        found = await serializers.page(connection, request.user.tenant_id, filters, before=before, limit=pager.fetch)
    page = pager.cut(found, key=lambda mail: [mail.task_id])
    return EmailPage(items=page.items, next_cursor=page.next_cursor)


@get(
    "/emails/{email_id:str}",
    guards=[require("emails:read")],
    summary="Look at a mail",
    opt=examples(answer=show.SENT),
)
async def look(request: Request, email_id: FromPath[str]) -> EmailOut:
    """Return a mail with its status, as of now."""
    return await _found(request, email_id, serializers.one)


@get(
    "/emails/{email_id:str}/events",
    guards=[require("emails:read")],
    summary="What happened to a mail",
    opt=examples(answer=show.EVENTS),
)
async def happened(request: Request, email_id: FromPath[str]) -> EventList:
    """Return everything that happened to a mail, oldest first: its acceptance, each attempt with the server's reply."""
    return EventList(items=await _found(request, email_id, events))


@get(
    "/emails/{email_id:str}/content",
    guards=[require("emails:read")],
    summary="The mail as it is rendered",
    opt=examples(answer=CONTENT),
)
async def content(request: Request, email_id: FromPath[str]) -> Response[Content]:
    """Return the subject, HTML and text of a mail; with `Accept: text/html` its HTML alone, for a sandboxed frame."""
    await _found(request, email_id, serializers.one)
    office = Office.of(request.app.state.runtime)
    stored = await office.loader.read(params.uuid_of(email_id))
    if stored is None:
        raise _unknown()
    return framed(request, await stored_content(stored, office.library, office.links.link(stored.reader)))


@post(
    "/emails/{email_id:str}/cancel",
    guards=[require("emails:send")],
    status_code=200,
    summary="Cancel a mail",
    opt=examples(answer=show.CANCELED),
)
async def cancel(request: Request, email_id: FromPath[str]) -> Response[EmailOut]:
    """Cancel a mail that no worker has taken up yet; one that is being sent, or was, answers 409.

    Canceling again is harmless. 202: a worker took the mail up just now; it will stop before it is sent.
    """
    mail = await _found(request, email_id, serializers.one)
    done = Canceling.CANCELED if mail.status == Status.CANCELED else Canceling.REFUSED
    if mail.status in {Status.SCHEDULED, Status.QUEUED}:
        done = await request.app.state.runtime.ledger.cancel(params.uuid_of(email_id), request.user.tenant_id)
        mail = await _found(request, email_id, serializers.one)
    if done in {Canceling.REFUSED, Canceling.UNKNOWN}:
        raise Conflict(f"The mail is {mail.status}; only one that waits can be canceled.", code="not-cancelable")
    return Response(mail, status_code=200 if done is Canceling.CANCELED else 202)


@post(
    "/send-test-email",
    guards=[require("emails:send")],
    status_code=202,
    summary="Queue a test mail",
    tags=["Compatibility"],
    opt=examples(answer=show.TRIAL),
)
async def send_test_email(request: Request, email_to: EmailTo = None) -> Response[TrialEmailOut]:
    """Queue a test email to `email_to`, or `to` of the body; return its task id at once.

    Without either it goes to the service's own sender address; to `delivered@simulator.callboard.test` where that is
    an address of this machine only and the mail server is the development mailbox.
    """
    wanted, state = await read_trial(request, email_to), request.app.state
    default = default_recipient(Office.of(state.runtime).house.sender, mailbox=state.settings.smtp_mailbox)
    letter = trial_letter(wanted.to or default)
    got = await _accept(request, letter, _test_answer)
    return got.answer.response(replayed=got.outcome is Outcome.REPLAYED)


async def _accept(request: Request, data: EmailRequest, answer: Callable[[EmailOut], Answer]) -> Accepted:
    principal = request.user
    made = await Office.of(request.app.state.runtime).desk(principal.tenant_id).draft(data)
    if made.files:
        async with request.app.state.engine.begin() as connection:
            await keep(connection, principal.tenant_id, made.files, PATIENCE)
    submission = Submission(
        records=[row(made, principal.tenant_id, principal.mode, request.request_id)],
        messages=[(made.id, message(made, principal.tenant_id))],
        answer=answer(serializers.accepted(made, principal.mode, request.request_id)),
        may_conflict=made.dedup_key is not None,
    )
    return await accept(request, TABLE, submission)


def _answer(told: EmailOut) -> Answer:
    return Answer(202, told, {"Location": f"/v1/emails/{told.id}"})


def _test_answer(told: EmailOut) -> Answer:
    body = TrialEmailOut(message="Test email queued", task_id=told.task_id)
    return Answer(202, body, {"Location": f"/v1/tasks/{told.task_id}"})


async def _earlier(request: Request, dedup_key: str) -> Response[EmailOut] | None:
    """Answer with the mail that bears the key; None where nobody does, or nobody does any more."""
    async with request.app.state.engine.begin() as connection:
        await release(connection, request.user.tenant_id, [dedup_key])
        mail = await serializers.deduplicated(connection, request.user.tenant_id, dedup_key)
    if mail is None:
        return None
    return Response(mail, status_code=200, headers={"Location": f"/v1/emails/{mail.id}", "Deduplicated": "true"})


async def _waited(request: Request, got: Accepted, seconds: float) -> Response[EmailOut]:
    email_id = got.answer.headers["Location"].rpartition("/")[2]
    mail, done = await wait_for(lambda: _found(request, email_id, serializers.one), _is_over, seconds)
    headers = {**got.answer.headers, **({"Idempotency-Replayed": "true"} if got.outcome is Outcome.REPLAYED else {})}
    return Response(mail, status_code=200 if done else 202, headers=headers)


def _is_over(mail: EmailOut) -> bool:
    return Status(mail.status).terminal


async def _found(request: Request, email_id: str, read: Read[T]) -> T:
    uuid = params.uuid_of(email_id)
    async with request.app.state.engine.connect() as connection:
        found = await read(connection, request.user.tenant_id, uuid)
    if found is None:
        raise _unknown()
    return found


def _unknown() -> NotFound:
    return NotFound("There is no such mail.", code="unknown-email")


routers = [
    Router(
        "/v1",
        route_handlers=[send, send_batch, listing, look, happened, content, reschedule, cancel, resend],
        tags=["Emails"],
    ),
    inbound.router,
    Router("/", route_handlers=[send_test_email]),
]
