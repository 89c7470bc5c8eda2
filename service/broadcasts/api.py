"""`/v1/emails/bulk` and `/v1/bulk/{id}`."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Response, Router, get, patch, post, put
from litestar.params import FromPath, JSONBody, QueryParameter
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from uuid_utils.compat import uuid7

from callboard_workers.message import Message
from callboard_workers.runtime import Runtime
from service.broadcasts import commands, repository, serializers
from service.broadcasts.actors import expand_bulk
from service.broadcasts.add_recipients import Taken, following, listed, take
from service.broadcasts.models import Bulk, BulkStatus, Common, gate_name
from service.broadcasts.rate import read_rate
from service.broadcasts.recipient_rows import READERS
from service.broadcasts.schemas import BulkOut, BulkPage, BulkPatch, BulkRequest, RowsOut
from service.core.errors import Conflict, Fault, Invalid, NotFound
from service.emails import examples as show
from service.emails.compose import Desk
from service.emails.prepare import moment
from service.emails.resources import Office
from service.emails.schemas import EmailRequest
from service.web import (
    Answer,
    Cursor,
    Limit,
    Pager,
    Request,
    accepts,
    answers,
    examples,
    large_body,
    once,
    require,
    transaction,
)
from service.web.row_format import Read
from service.web.row_upload import place, reader_of, rows

TOPIC = re.compile(r"[\x21-\x7e]{1,200}")

_ID = re.compile(r"bk_([0-9a-f]{32})")

Mode_ = Annotated[
    Literal["atomic", "partial"],
    QueryParameter(name="mode", required=False, description="`atomic`: all rows or none; `partial`: all that can be."),
]


@post(
    "/emails/bulk",
    guards=[require("emails:send")],
    status_code=202,
    summary="Send one template to many",
    opt=examples(body=show.BULK, answer=show.BULK_ACCEPTED) | large_body(),
)
async def send_bulk(request: Request, data: JSONBody[BulkRequest]) -> Response[BulkOut]:
    """Accept a bulk: a template to a list, to the followers of a topic, or to the rows of files that come later.

    An address that is there twice gets one mail. The version of the template is fixed now. Mails go in the `bulk` lane,
    no faster than `throttle` says, and can be paused, corrected and canceled until they are sent.
    """
    desk = _desk(request)
    bulk = await _bulk(request, data, desk)

    async def work(session: AsyncSession) -> Answer:
        connection = await session.connection()
        await repository.insert(connection, bulk)
        taken = await take(connection, bulk, desk, _recipients(connection, bulk, data), data.mode)
        await _note(connection, bulk, taken)
        if bulk.status == BulkStatus.RUNNING:
            await _start(request, session, bulk)
        told = await serializers.one(connection, bulk.tenant_id, bulk.id)
        assert told is not None  # noqa: S101 - it was stored a moment ago
        told = msgspec.structs.replace(told, errors=taken.faults)
        return Answer(202, told, {"Location": f"/v1/bulk/{told.id}"})

    return await once(request, work)


@put(
    "/bulk/{id:str}/recipients",
    guards=[require("emails:send")],
    status_code=200,
    summary="Add a file of recipients to an open bulk",
    opt=examples(answer=show.ROWS) | accepts({"text/csv": str, "application/x-ndjson": str}) | answers(409),
)
async def add_recipients(request: Request, id: FromPath[str], mode: Mode_ = "partial") -> RowsOut:
    """Read a file of rows as it comes: CSV with a header (`to`, `locale`, a column for each variable), or NDJSON.

    The bulk must be `open`. `partial` (the default) takes every row that can be served and names the others by line;
    `atomic` takes all or none. Addresses that are there already count as duplicates: the same file again adds nothing.
    """
    reader = reader_of(request, READERS)
    desk = _desk(request)
    async with place(request), transaction(request) as session:
        connection = await session.connection()
        bulk = await commands.locked(connection, _uuid(id), request.user.tenant_id)
        if bulk.status != BulkStatus.OPEN:
            raise Conflict(f"The bulk is {bulk.status}; recipients are added while it is open.", code="not-open")
        taken = await take(connection, bulk, desk, rows(request, reader), mode)
        await _note(connection, bulk, taken)
    return RowsOut(
        added=taken.added,
        duplicates=taken.duplicates,
        refused=taken.refused,
        total=bulk.total + taken.added,
        errors=taken.faults,
    )


@get("/bulk", guards=[require("emails:read")], summary="List bulks, newest first", opt=examples(answer=show.BULKS))
async def listing(request: Request, *, limit: Limit = None, cursor: Cursor = None) -> BulkPage:
    """List this tenant's bulks, each with its counts."""
    pager = Pager(request, limit, cursor)
    before = UUID(pager.after[0]) if pager.after else None
    async with request.app.state.engine.connect() as connection:
        found = await repository.page(connection, request.user.tenant_id, before, pager.fetch)
        page = pager.cut(found, key=lambda bulk: [str(bulk.id)])
        return BulkPage(items=await serializers.told(connection, page.items), next_cursor=page.next_cursor)


@get("/bulk/{id:str}", guards=[require("emails:read")], summary="Look at a bulk", opt=examples(answer=show.BULK_SENT))
async def look(request: Request, id: FromPath[str]) -> BulkOut:
    """Return a bulk with its live counts."""
    async with request.app.state.engine.connect() as connection:
        found = await serializers.one(connection, request.user.tenant_id, _uuid(id))
    if found is None:
        raise commands.unknown()
    return found


@patch(
    "/bulk/{id:str}",
    guards=[require("emails:send")],
    status_code=200,
    summary="Correct a paused bulk",
    opt=examples(body=show.BULK_PATCH, answer=show.BULK_SENT),
)
async def correct(request: Request, id: FromPath[str], data: JSONBody[BulkPatch]) -> BulkOut:
    """Change the template's version or shared variables for every mail that was not sent, or the throttle.

    The bulk must be paused, but for the throttle. Recipients whom the template would not fit are named (422).
    """
    desk = _desk(request)

    async def work(connection: AsyncConnection, bulk: Bulk) -> None:
        await commands.correct(connection, bulk, desk, data)

    async with transaction(request) as session:
        return await _change(request, session, id, work)


@post(
    "/bulk/{id:str}/start",
    guards=[require("emails:send")],
    status_code=200,
    summary="Start an open bulk",
    opt=examples(answer=show.BULK_ACCEPTED),
)
async def start(request: Request, id: FromPath[str]) -> Response[BulkOut]:
    """Begin to send; no more recipients can be added. Starting again is harmless."""

    async def work(session: AsyncSession) -> Answer:
        async def begin(connection: AsyncConnection, bulk: Bulk) -> None:
            if bulk.status in {BulkStatus.RUNNING, BulkStatus.PAUSED}:
                return
            if bulk.status != BulkStatus.OPEN or not bulk.total:
                words = "has no recipients" if bulk.status == BulkStatus.OPEN else f"is {bulk.status}"
                raise Conflict(f"The bulk {words}.", code="not-startable")
            await repository.update(connection, bulk.id, status=BulkStatus.RUNNING)
            await _start(request, session, bulk)

        return Answer(200, await _change(request, session, id, begin))

    return await once(request, work)


@post(
    "/bulk/{id:str}/pause",
    guards=[require("emails:send")],
    status_code=200,
    summary="Pause a bulk",
    opt=examples(answer=show.BULK_SENT),
)
async def pause(request: Request, id: FromPath[str]) -> Response[BulkOut]:
    """Send nothing that has not started; mails that are being handed over now still go. Again is harmless."""
    return await _command(request, id, commands.pause)


@post(
    "/bulk/{id:str}/resume",
    guards=[require("emails:send")],
    status_code=200,
    summary="Resume a paused bulk",
    opt=examples(answer=show.BULK_SENT),
)
async def resume(request: Request, id: FromPath[str]) -> Response[BulkOut]:
    """Go on where it was paused. Again is harmless."""
    answer = await _command(request, id, commands.resume)
    runtime: Runtime = request.app.state.runtime
    uuid = _uuid(id)
    runtime.admit_soon([gate_name(uuid)])
    runtime.ring([_message(uuid, request.user.tenant_id, None)])
    return answer


@post(
    "/bulk/{id:str}/cancel",
    guards=[require("emails:send")],
    status_code=200,
    summary="Cancel a bulk",
    opt=examples(answer=show.BULK_SENT),
)
async def cancel(request: Request, id: FromPath[str]) -> Response[BulkOut]:
    """Cancel every mail that was not sent; what is being sent stops if it still can. Again is harmless."""
    return await _command(request, id, commands.cancel)


Change = Callable[[AsyncConnection, Bulk], Awaitable[None]]


async def _command(request: Request, id: str, change: Change) -> Response[BulkOut]:
    async def work(session: AsyncSession) -> Answer:
        return Answer(200, await _change(request, session, id, change))

    return await once(request, work)


async def _change(request: Request, session: AsyncSession, id: str, change: Change) -> BulkOut:
    connection = await session.connection()
    bulk = await commands.locked(connection, _uuid(id), request.user.tenant_id)
    await change(connection, bulk)
    told = await serializers.one(connection, bulk.tenant_id, bulk.id)
    assert told is not None  # noqa: S101 - it is locked
    return told


async def _bulk(request: Request, data: BulkRequest, desk: Desk) -> Bulk:
    """The record of a bulk that keeps every rule its mails have in common. Raises Invalid, Forbidden."""
    faults = list(_frame_faults(data))
    pace, period = (None, None) if data.throttle is None else read_rate(data.throttle)
    version = await desk.version(data.template)
    faults += await _common_faults(data, desk)
    if faults:
        raise Invalid(faults)
    id = uuid7()
    return Bulk(
        id=id,
        tenant_id=request.user.tenant_id,
        mode=request.user.mode,
        status=BulkStatus.OPEN if data.recipients is None and data.topic is None else BulkStatus.RUNNING,
        name=data.name,
        request_id=request.request_id,
        request=Common(
            template=msgspec.structs.replace(data.template, version=version),
            **{name: getattr(data, name) for name in Common.__struct_fields__ if name != "template"},
        ),
        pace=pace,
        period=period,
        scheduled_at=data.scheduled_at,
        total=0,
        duplicates=0,
        refused=0,
        expanded=0,
        last_seq=0,
        next_seq=0,
        created_at=moment(id),
        updated_at=moment(id),
    )


def _frame_faults(data: BulkRequest) -> list[Fault]:
    faults = []
    if data.recipients is not None and data.topic is not None:
        faults.append(Fault("/topic", "Give `recipients` or a `topic`, not both."))
    if data.topic is not None and not TOPIC.fullmatch(data.topic):
        faults.append(Fault("/topic", "must be 1 to 200 printable ASCII characters without spaces."))
    if data.name is not None and (not data.name.isprintable() or not 1 <= len(data.name) <= 200):
        faults.append(Fault("/name", "must be 1 to 200 printable characters."))
    return faults


async def _common_faults(data: BulkRequest, desk: Desk) -> list[Fault]:
    """Hold what all mails have in common against the rules, as one mail to nobody in particular."""
    sample = EmailRequest(
        to="reader@example.org",
        template=data.template,
        sender=data.sender,
        reply_to=data.reply_to,
        headers=data.headers,
        tags=data.tags,
        metadata=data.metadata,
        category=data.category,
        unsubscribe=data.unsubscribe,
        scheduled_at=data.scheduled_at,
        expires_at=data.expires_at,
        uncertain=data.uncertain,
        lane="bulk",
    )
    try:
        await desk.draft(sample)
    except Invalid as error:
        # A variable that is missing here may come with each recipient.
        return [fault for fault in error.errors if not fault.pointer.startswith("/template/variables/")]
    return []


async def _recipients(connection: AsyncConnection, bulk: Bulk, data: BulkRequest) -> AsyncIterator[Read]:
    if data.recipients is not None:
        async for row in listed(data.recipients):
            yield row
    elif data.topic is not None:
        async for row in following(connection, bulk, data.topic):
            yield row


async def _note(connection: AsyncConnection, bulk: Bulk, taken: Taken) -> None:
    await repository.update(
        connection,
        bulk.id,
        more_total=taken.added,
        more_duplicates=taken.duplicates,
        more_refused=taken.refused,
        last_seq=taken.last_seq,
    )


async def _start(request: Request, session: AsyncSession, bulk: Bulk) -> None:
    runtime: Runtime = request.app.state.runtime
    at = bulk.scheduled_at if bulk.scheduled_at is not None and bulk.scheduled_at > bulk.created_at else None
    await runtime.enqueue(session, _message(bulk.id, bulk.tenant_id, at))


def _message(id: UUID, tenant_id: UUID, at: Any) -> Message:
    made: Message = expand_bulk.options(id=id, tenant_id=tenant_id, at=at).message(id)
    return made


def _desk(request: Request) -> Desk:
    return Office.of(request.app.state.runtime).desk(request.user.tenant_id)


def _uuid(id: str) -> UUID:
    found = _ID.fullmatch(id)
    if found is None:
        raise NotFound("There is no such bulk: its id is `bk_` and 32 hex digits.", code="unknown-bulk")
    return UUID(hex=found[1])


routers = [
    Router(
        "/v1",
        route_handlers=[send_bulk, add_recipients, listing, look, correct, start, pause, resume, cancel],
        tags=["Bulk"],
    )
]
