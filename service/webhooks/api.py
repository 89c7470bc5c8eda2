"""`/v1/webhooks`: endpoints, their secrets, what was delivered to them, and once more."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Response, Router, delete, get, patch, post
from litestar.params import FromPath, JSONBody, QueryParameter
from sqlalchemy.ext.asyncio import AsyncSession

from service.core.errors import Fault, Invalid
from service.web import (
    Answer,
    Cursor,
    Limit,
    Pager,
    Request,
    accepts,
    examples,
    once,
    preferred_wait,
    require,
    transaction,
    wait_for,
)
from service.web.json_body import decode
from service.webhooks import examples as show
from service.webhooks import params, repository, serializers
from service.webhooks import redeliver as redelivering
from service.webhooks.models import Status, delivery_id, gate
from service.webhooks.models import endpoint_id as spell
from service.webhooks.resources import Postroom
from service.webhooks.schemas import (
    DeliveryDetail,
    DeliveryOut,
    DeliveryPage,
    EndpointOut,
    EndpointPage,
    EndpointPatch,
    EndpointRequest,
    EndpointWithSecret,
    Redelivered,
    RedeliverRequest,
    RotateRequest,
)

READ, WRITE = "webhooks:read", "webhooks:write"

Status_ = Annotated[
    Literal["pending", "sending", "delivered", "failed", "canceled"] | None,
    QueryParameter(name="status", required=False, description="One status."),
]
Type = Annotated[str | None, QueryParameter(name="type", required=False, description="One type of event.")]


@post(
    "",
    guards=[require(WRITE)],
    status_code=201,
    summary="Make an endpoint",
    opt=examples(body=show.REQUEST, answer=show.WITH_SECRET),
)
async def create(request: Request, data: JSONBody[EndpointRequest]) -> Response[EndpointWithSecret]:
    """Make an endpoint that is told of what becomes of mails and jobs, by signed calls (Standard Webhooks).

    The `secret` is told this once. A live key's endpoint is told of what live keys did, a test key's of the rest.
    """
    room = Postroom.of(request.app.state.runtime)
    url, found = await params.check_url(room.guard, data.url)
    found += params.type_faults(data.events) + params.text_faults(data.description)
    found += params.secret_faults(data.secret)
    if found or url is None:
        raise Invalid(found)
    asked, told = msgspec.structs.replace(data, url=url), list[str]()

    async def work(session: AsyncSession) -> Answer:
        made, secret = await repository.create(session, room, request.user.tenant_id, request.user.mode, asked)
        told.append(secret)
        return Answer(201, _with_secret(made, None), {"Location": f"/v1/webhooks/{made.id}"})

    return _reveal(await once(request, work), told)


@get("", guards=[require(READ)], summary="List endpoints", opt=examples(answer=show.PAGE))
async def listing(request: Request, *, limit: Limit = None, cursor: Cursor = None) -> EndpointPage:
    """List this tenant's endpoints, newest first; secrets are not told."""
    pager = Pager(request, limit, cursor)
    before = UUID(pager.after[0]) if pager.after else None
    async with request.app.state.engine.connect() as connection:
        found = await repository.page(connection, request.user.tenant_id, limit=pager.fetch, before=before)
    page = pager.cut(found, key=lambda each: [str(params.endpoint(each.id))])
    return EndpointPage(items=page.items, next_cursor=page.next_cursor)


@get("/{webhook_id:str}", guards=[require(READ)], summary="Look at an endpoint", opt=examples(answer=show.ENDPOINT))
async def look(request: Request, webhook_id: FromPath[str]) -> EndpointOut:
    """Tell an endpoint: what it subscribed to, and how it fares."""
    async with request.app.state.engine.connect() as connection:
        return await repository.one(connection, request.user.tenant_id, params.endpoint(webhook_id))


@patch(
    "/{webhook_id:str}",
    guards=[require(WRITE)],
    summary="Change an endpoint",
    opt=examples(body={"events": ["email.bounced"]}, answer=show.ENDPOINT),
)
async def change(request: Request, webhook_id: FromPath[str], data: JSONBody[EndpointPatch]) -> EndpointOut:
    """Change what is given. `enabled: false` cancels what waits; `enabled: true` forgets earlier failures."""
    id = params.endpoint(webhook_id)
    url, found = await params.check_url(Postroom.of(request.app.state.runtime).guard, data.url)
    found += params.type_faults(data.events) + params.text_faults(data.description)
    if found:
        raise Invalid(found)
    given = {"url": url, "events": data.events, "description": data.description, "enabled": data.enabled}
    async with transaction(request) as session:
        values = {name: value for name, value in given.items() if value is not None}
        return await repository.change(session, request.user.tenant_id, id, values)


@delete("/{webhook_id:str}", guards=[require(WRITE)], status_code=204, summary="Delete an endpoint")
async def remove(request: Request, webhook_id: FromPath[str]) -> None:
    """Delete an endpoint and all that is known of its deliveries; what waits for it is canceled."""
    async with transaction(request) as session:
        await repository.delete(session, request.user.tenant_id, params.endpoint(webhook_id))


@post(
    "/{webhook_id:str}/rotate",
    guards=[require(WRITE)],
    status_code=200,
    summary="Give an endpoint a new secret",
    opt=examples(body={"overlap": 86_400}, answer=show.WITH_SECRET) | accepts({"application/json": RotateRequest}),
)
async def rotate(request: Request, webhook_id: FromPath[str]) -> Response[EndpointWithSecret]:
    """Create a new secret, returned this once. For `overlap` seconds (a day by default) calls have both signatures."""
    data = RotateRequest()
    if await request.body():
        request.check_media()
        data = await request.decoded(partial(decode, kind=RotateRequest))
    id, room, told = params.endpoint(webhook_id), Postroom.of(request.app.state.runtime), list[str]()
    if found := params.secret_faults(data.secret):
        raise Invalid(found)

    async def work(session: AsyncSession) -> Answer:
        made, secret = await repository.rotate(session, room, request.user.tenant_id, id, data)
        told.append(secret)
        return Answer(200, _with_secret(made, None))

    return _reveal(await once(request, work), told)


@post(
    "/{webhook_id:str}/test",
    guards=[require(WRITE)],
    status_code=202,
    summary="Send a test event",
    opt=examples(answer=show.DETAIL),
)
async def try_out(request: Request, webhook_id: FromPath[str]) -> Response[DeliveryDetail]:
    """Send `webhook.test` to this endpoint alone. `Prefer: wait=20` holds the answer until it was delivered (200)."""
    id = params.endpoint(webhook_id)

    async def work(session: AsyncSession) -> Answer:
        found = await repository.one(session, request.user.tenant_id, id)
        made = await redelivering.try_out(session, request.user.tenant_id, found, request.request_id)
        return await _accepted(request, session, id, made)

    return await _waited(request, await once(request, work), id)


@get(
    "/{webhook_id:str}/deliveries",
    guards=[require(READ)],
    summary="List deliveries, newest first",
    opt=examples(answer=show.DELIVERIES),
)
async def list_deliveries(
    request: Request,
    webhook_id: FromPath[str],
    *,
    limit: Limit = None,
    cursor: Cursor = None,
    status: Status_ = None,
    type: Type = None,
) -> DeliveryPage:
    """List what was, and is to be, delivered to an endpoint; kept as long as tasks are (RETENTION)."""
    filters: dict[str, Any] = {"endpoint_id": params.endpoint(webhook_id), "status": status, "type": type}
    pager = Pager(request, limit, cursor, filters=filters)
    before = UUID(pager.after[0]) if pager.after else None
    async with request.app.state.engine.connect() as connection:
        await repository.one(connection, request.user.tenant_id, filters["endpoint_id"])
        found = await serializers.page(connection, request.user.tenant_id, limit=pager.fetch, before=before, **filters)
    page = pager.cut(found, key=lambda each: [each.task_id])
    return DeliveryPage(items=page.items, next_cursor=page.next_cursor)


@get(
    "/{webhook_id:str}/deliveries/{delivery_id:str}",
    guards=[require(READ)],
    summary="Look at a delivery",
    opt=examples(answer=show.DETAIL),
)
async def look_at_delivery(request: Request, webhook_id: FromPath[str], delivery_id: FromPath[str]) -> DeliveryDetail:
    """Tell a delivery with what is sent, and every attempt: the answer, how long it took, what went wrong."""
    return await _look(request, params.endpoint(webhook_id), params.delivery(delivery_id))()


@post(
    "/{webhook_id:str}/deliveries/{delivery_id:str}/redeliver",
    guards=[require(WRITE)],
    status_code=202,
    summary="Deliver once more",
    opt=examples(answer=show.DETAIL),
)
async def redeliver(
    request: Request, webhook_id: FromPath[str], delivery_id: FromPath[str]
) -> Response[DeliveryDetail]:
    """Deliver an event once more, with the same `webhook-id`: at once, and with all the attempts again.

    What failed is put back and what waits is brought forward, under the same id; anything else is a new delivery.
    """
    endpoint, old = params.endpoint(webhook_id), params.delivery(delivery_id)
    runtime = request.app.state.runtime

    async def work(session: AsyncSession) -> Answer:
        found = await serializers.one(await session.connection(), request.user.tenant_id, endpoint, old)
        made = await redelivering.again(session, request.user.tenant_id, found, old, endpoint)
        if made is None:
            await runtime.ledger.requeue([old], by=request.user.key, tenant_id=request.user.tenant_id, reason="api")
        return await _accepted(request, session, endpoint, made or old)

    answer = await once(request, work)
    runtime.admit_soon([gate(endpoint)])
    return await _waited(request, answer, endpoint)


@post(
    "/{webhook_id:str}/redeliver",
    guards=[require(WRITE)],
    status_code=202,
    summary="Deliver again what happened since a time",
    opt=examples(body=show.SINCE, answer={"queued": 17, "more": False}),
)
async def redeliver_since(
    request: Request, webhook_id: FromPath[str], data: JSONBody[RedeliverRequest]
) -> Response[Redelivered]:
    """Deliver what an endpoint missed: each event since a time that did not reach it; with `all`, each event.

    A thousand at a time: while `more` is true, ask again.
    """
    endpoint, since, until = params.endpoint(webhook_id), *_range(data)
    tenant, runtime = request.user.tenant_id, request.app.state.runtime

    async def work(session: AsyncSession) -> Answer:
        await repository.one(session, tenant, endpoint)
        connection = await session.connection()
        found = await redelivering.chosen(connection, tenant, endpoint, since, until, everything=data.all)
        failed = [id for id, _, status in found if status is Status.FAILED]
        await runtime.ledger.requeue(failed, by=request.user.key, tenant_id=tenant, reason="api")
        for _, event, status in found:
            if status is not Status.FAILED:
                await redelivering.make(session, tenant, endpoint, event)
        return Answer(202, Redelivered(queued=len(found), more=len(found) >= redelivering.BATCH))

    answer = await once(request, work)
    runtime.admit_soon([gate(endpoint)])
    return answer


def _range(data: RedeliverRequest) -> tuple[UUID, UUID]:
    until = data.until or datetime.now(UTC) + timedelta(days=1)
    faults = [
        Fault(f"/{name}", "The time needs an offset, such as Z.")
        for name, moment in (("since", data.since), ("until", until))
        if moment.tzinfo is None
    ]
    if not faults and until <= data.since:
        faults = [Fault("/until", "It must be after `since`.")]
    if faults:
        raise Invalid(faults)
    return redelivering.first_id(data.since), redelivering.first_id(until)


def _with_secret(made: EndpointOut, secret: str | None) -> EndpointWithSecret:
    return EndpointWithSecret(**msgspec.structs.asdict(made), secret=secret)


def _reveal(answer: Response[Any], told: list[str]) -> Response[Any]:
    """Put the secret into the first answer alone: what is stored for a replay does not hold it."""
    if not told or (answer.status_code or 500) >= 300 or "Idempotency-Replayed" in answer.headers:
        return answer
    body = msgspec.json.decode(answer.content) | {"secret": told[-1]}
    headers = {name: value for name, value in answer.headers.items() if name == "Location"}
    return Response(body, status_code=answer.status_code, headers={**headers, "Cache-Control": "no-store"})


async def _accepted(request: Request, session: AsyncSession, endpoint: UUID, id: UUID) -> Answer:
    told = await serializers.one(await session.connection(), request.user.tenant_id, endpoint, id)
    return Answer(202, told, {"Location": f"/v1/webhooks/{spell(endpoint)}/deliveries/{delivery_id(id)}"})


def _look(request: Request, endpoint: UUID, id: UUID) -> Callable[[], Awaitable[DeliveryDetail]]:
    async def look_again() -> DeliveryDetail:
        async with request.app.state.engine.connect() as connection:
            return await serializers.one(connection, request.user.tenant_id, endpoint, id)

    return look_again


async def _waited(request: Request, answer: Response[Any], endpoint: UUID) -> Response[Any]:
    """Hold a 202 as long as the caller prefers, until the delivery was made or has failed once."""
    seconds, location = preferred_wait(request), answer.headers.get("Location", "")
    if not seconds or answer.status_code != 202:
        return answer
    id = params.delivery(location.rpartition("/")[2])
    found, _ = await wait_for(_look(request, endpoint, id), _is_over, seconds)
    headers = {name: value for name, value in answer.headers.items() if name in {"Location", "Idempotency-Replayed"}}
    status = 200 if found.status.terminal else 202
    return Response(msgspec.to_builtins(found), status_code=status, headers=headers)


def _is_over(found: DeliveryOut) -> bool:
    return found.status.terminal or (found.status is Status.PENDING and found.error is not None)


routers = [
    Router(
        "/v1/webhooks",
        route_handlers=[
            create, listing, look, change, remove, rotate, try_out,
            list_deliveries, look_at_delivery, redeliver, redeliver_since,
        ],
        tags=["Webhooks"],
    )
]  # fmt: skip
