"""`/v1/suppressions`: who gets no mail, entered one by one or a thousand at once, listed, struck out."""

from typing import Annotated
from uuid import UUID

from litestar import Response, Router, delete, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, JSONBody, QueryParameter
from sqlalchemy.ext.asyncio import AsyncSession

from service.core.errors import NotFound
from service.suppressions import examples as show
from service.suppressions import parse, repository
from service.suppressions.schemas import (
    SuppressionBatch,
    SuppressionBatchOut,
    SuppressionOut,
    SuppressionPage,
    SuppressionRequest,
)
from service.suppressions.unsubscribe import api as unsubscribe_api
from service.web import Answer, Cursor, Limit, Pager, Request, examples, once, require, transaction

Address = Annotated[str | None, QueryParameter(required=False, description="One address, in any case.")]
Category = Annotated[str | None, QueryParameter(required=False, description="One category.")]
Reason_ = Annotated[str | None, QueryParameter(required=False, description="One reason.")]


@post(
    "/suppressions",
    guards=[require("suppressions:write")],
    status_code=201,
    summary="Suppress an address",
    responses={200: ResponseSpec(SuppressionOut, generate_examples=False, description="It was suppressed already.")},
    opt=examples(body=show.REQUEST, answer=show.SUPPRESSION),
)
async def enter(request: Request, data: JSONBody[SuppressionRequest]) -> Response[SuppressionOut]:
    """Keep every mail, or every mail of one category, from an address. Again is harmless: 200 with what stands.

    Mail that was accepted before and has not left yet is kept back as well.
    """
    entry = parse.entry_of(data)

    async def work(session: AsyncSession) -> Answer:
        tenant_id, mode = request.user.tenant_id, request.user.mode
        new = await repository.enter(session, tenant_id, mode, [entry])
        (stands,) = await repository.find(session, tenant_id, mode, [entry])
        return Answer(201 if new else 200, stands, {"Location": f"/v1/suppressions/{stands.id}"})

    return await once(request, work)


@post(
    "/suppressions/batch",
    guards=[require("suppressions:write")],
    status_code=200,
    summary="Suppress up to 1,000 addresses",
    opt=examples(body=show.BATCH, answer=show.BATCH_OUT),
)
async def enter_all(request: Request, data: JSONBody[SuppressionBatch]) -> Response[SuppressionBatchOut]:
    """Enter all of them, or none where one is wrong: 422 names every fault by its index."""
    entries = parse.batch_of(data.items)

    async def work(session: AsyncSession) -> Answer:
        tenant_id, mode = request.user.tenant_id, request.user.mode
        new = await repository.enter(session, tenant_id, mode, entries)
        items = await repository.find(session, tenant_id, mode, entries)
        return Answer(200, SuppressionBatchOut(items=items, created=len(new)))

    return await once(request, work)


@get(
    "/suppressions",
    guards=[require("suppressions:read")],
    summary="List suppressions, newest first",
    opt=examples(answer=show.PAGE),
)
async def listing(
    request: Request,
    *,
    limit: Limit = None,
    cursor: Cursor = None,
    address: Address = None,
    category: Category = None,
    reason: Reason_ = None,
) -> SuppressionPage:
    """List who gets no mail, and why."""
    filters = parse.filters_of(address=address, category=category, reason=reason)
    pager = Pager(request, limit, cursor, filters={**filters, "mode": request.user.mode})
    before = UUID(pager.after[0]) if pager.after else None
    async with transaction(request) as session:
        found = await repository.page(
            session, request.user.tenant_id, request.user.mode, filters, before=before, limit=pager.fetch
        )
    page = pager.cut(found, key=lambda item: [item.id.removeprefix("su_")])
    return SuppressionPage(items=page.items, next_cursor=page.next_cursor)


@get(
    "/suppressions/{suppression_id:str}",
    guards=[require("suppressions:read")],
    summary="Look at a suppression",
    opt=examples(answer=show.SUPPRESSION),
)
async def look(request: Request, suppression_id: FromPath[str]) -> SuppressionOut:
    """Return one suppression."""
    id = parse.uuid_of(suppression_id)
    async with transaction(request) as session:
        found = await repository.one(session, request.user.tenant_id, request.user.mode, id)
    if found is None:
        raise _unknown()
    return found


@delete("/suppressions/{suppression_id:str}", guards=[require("suppressions:write")], summary="Lift a suppression")
async def lift(request: Request, suppression_id: FromPath[str]) -> None:
    """Let mail through again. What was kept back meanwhile stays unsent."""
    id = parse.uuid_of(suppression_id)
    async with transaction(request) as session:
        if not await repository.strike(session, request.user.tenant_id, request.user.mode, id):
            raise _unknown()


def _unknown() -> NotFound:
    return NotFound("There is no such suppression.", code="unknown-suppression")


routers = [
    Router("/v1", route_handlers=[enter, enter_all, listing, look, lift], tags=["Suppressions"]),
    unsubscribe_api.router,
]
