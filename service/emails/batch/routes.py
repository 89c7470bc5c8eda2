"""`POST /v1/emails/batch`."""

from typing import Any
from uuid import UUID

from litestar import Response, post
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from callboard_workers.ledger.inserts import after_commit
from callboard_workers.runtime import Runtime
from service.core.errors import Conflict
from service.core.ids import email_id
from service.emails import examples as show
from service.emails.actors import message
from service.emails.attachment_store import PATIENCE
from service.emails.batch.reading import Frame, Refusal, all_or_none, drafts, frame
from service.emails.batch.schemas import BatchItem, BatchOut, BatchRequest, ItemError
from service.emails.insert import Mail, store
from service.emails.models import Status
from service.emails.prepare import Draft
from service.emails.resources import Office
from service.web import Answer, Request, accepts, examples, large_body, once, require
from service.web.json_body import read

EARLIER = text("SELECT dedup_key, id, status FROM emails WHERE tenant_id = :tenant_id AND dedup_key = ANY(:keys)")
TRIES = 3
"""How often a mail is stored whose key is somebody's in one moment and nobody's in the next."""


@post(
    "/emails/batch",
    guards=[require("emails:send")],
    status_code=202,
    summary="Send up to 1,000 different mails",
    opt=examples(body=show.BATCH, answer=show.BATCH_ACCEPTED)
    | accepts({"application/json": BatchRequest})
    | large_body(),
)
async def send_batch(request: Request) -> Response[BatchOut]:
    """Accept many mails in one transaction, each with every field of a single one.

    `atomic` (the default) stores all or none: 422 names every fault by its place in the body. `partial` stores what can
    be stored, and the item of each other mail says why it is not. An item has the index of its mail.
    """
    request.check_media()
    wanted = frame(await request.decoded(read))
    desk = Office.of(request.app.state.runtime).desk(request.user.tenant_id)
    made = await drafts(wanted.emails, desk)
    if wanted.mode == "atomic":
        all_or_none(made)

    async def work(session: AsyncSession) -> Answer:
        return Answer(202, await _store(request, session, wanted, made))

    return await once(request, work)


async def _store(request: Request, session: AsyncSession, wanted: Frame, made: list[Draft | Refusal]) -> BatchOut:
    caller, runtime = request.user, request.app.state.runtime
    kept = [each for each in made if isinstance(each, Draft)]
    mails = [(each, message(each, caller.tenant_id)) for each in kept]
    new, earlier = await _settle(await session.connection(), request, mails)
    ring: Runtime = runtime
    after_commit(session, ring.ring, [sent for _, sent in mails if sent.id in new and sent.due_at is None])
    items = [_item(index, each, new, earlier) for index, each in enumerate(made)]
    return BatchOut(
        mode=wanted.mode,
        accepted=len(new),
        deduplicated=len(kept) - len(new),
        refused=len(made) - len(kept),
        items=items,
    )


async def _settle(
    connection: AsyncConnection, request: Request, mails: list[Mail]
) -> tuple[set[UUID], dict[str | None, Any]]:
    """Store the mails: the ids that are new, and by their keys the mails that the others are. Raises Conflict.

    A key may be let go of between the one statement and the other: its mail is stored then, or is another's after all.
    """
    new: set[UUID] = set()
    earlier: dict[str | None, Any] = {}
    left = mails
    for _ in range(TRIES):
        caller = request.user
        new |= await store(
            connection,
            left,
            tenant_id=caller.tenant_id,
            mode=caller.mode,
            request_id=request.request_id,
            patience=PATIENCE,
        )
        lost = [mail for mail in left if mail[0].id not in new]
        earlier |= await _earlier(connection, request, [draft for draft, _ in lost])
        left = [mail for mail in lost if mail[0].dedup_key not in earlier]
        if not left:
            return new, earlier
    raise Conflict("Other mails are just taking these dedup_keys; try again.", headers={"Retry-After": "1"})


async def _earlier(connection: AsyncConnection, request: Request, lost: list[Draft]) -> dict[str | None, Any]:
    """The mails that bear the keys of those that were not stored."""
    if not lost:
        return {}
    values = {"tenant_id": request.user.tenant_id, "keys": [each.dedup_key for each in lost]}
    return {row.dedup_key: row for row in await connection.execute(EARLIER, values)}


def _item(index: int, made: Draft | Refusal, new: set[UUID], earlier: dict[str | None, Any]) -> BatchItem:
    if isinstance(made, Refusal):
        error = ItemError(code=made.code, detail=made.detail, errors=made.errors)
        return BatchItem(index=index, error=error)
    if made.id not in new:
        known = earlier[made.dedup_key]
        return BatchItem(
            index=index, id=email_id(known.id), task_id=str(known.id), status=known.status, deduplicated=True
        )
    waits = made.scheduled_at is not None and made.scheduled_at > made.created_at
    status = Status.SCHEDULED if waits else Status.QUEUED
    return BatchItem(index=index, id=email_id(made.id), task_id=str(made.id), status=status)
