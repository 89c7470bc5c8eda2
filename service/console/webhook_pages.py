"""Webhooks: endpoints and how they fare, deliveries with every attempt, once more."""

from typing import Any

from litestar import Response, get, post
from litestar.params import FromPath

from service.console.pages import page, to, uuid_or_none
from service.console.visiting import form
from service.db import transaction
from service.web import Request
from service.webhooks import endpoints, parameters, redelivering, views
from service.webhooks.models import Status, gate

LIMIT = 50
STATUSES = [status.value for status in Status]


@get("/webhooks")
async def listing(request: Request) -> Response[str]:
    """List endpoints."""
    async with request.app.state.engine.connect() as connection:
        found = await endpoints.page(connection, request.user.tenant_id, limit=2 * endpoints.MOST)
    return page(request, "webhooks.html", endpoints=found)


@get("/webhooks/{id:str}")
async def look(request: Request, id: FromPath[str]) -> Response[str]:
    """Show an endpoint and its deliveries, newest first."""
    endpoint, status = parameters.endpoint(id), request.query_params.get("status", "")
    before, tenant = uuid_or_none(request.query_params.get("before")), request.user.tenant_id
    filters = {"endpoint_id": endpoint, "status": status if status in STATUSES else None, "before": before}
    async with request.app.state.engine.connect() as connection:
        told = await endpoints.one(connection, tenant, endpoint)
        found = await views.page(connection, tenant, limit=LIMIT + 1, **filters)
    more = found[LIMIT - 1].task_id if len(found) > LIMIT else None
    return page(
        request, "webhook.html", endpoint=told, deliveries=found[:LIMIT], status=status, statuses=STATUSES,
        more=more, before=before,
    )  # fmt: skip


@get("/webhooks/{id:str}/{delivery:str}")
async def look_at_delivery(request: Request, id: FromPath[str], delivery: FromPath[str]) -> Response[str]:
    """Show a delivery: what is sent, and every attempt."""
    async with request.app.state.engine.connect() as connection:
        found = await views.one(
            connection, request.user.tenant_id, parameters.endpoint(id), parameters.delivery(delivery)
        )
    return page(request, "delivery.html", delivery=found)


@post("/webhooks/{id:str}/enabled", status_code=200)
async def enable(request: Request, id: FromPath[str]) -> Response[Any]:
    """Enable or disable an endpoint."""
    wanted = (await form(request)).get("enabled") == ["yes"]
    async with transaction(request.app.state.sessions) as session:
        await endpoints.change(session, request.user.tenant_id, parameters.endpoint(id), {"enabled": wanted})
    return to(f"/console/webhooks/{id}?done={'enabled' if wanted else 'disabled'}")


@post("/webhooks/{id:str}/test", status_code=200)
async def try_out(request: Request, id: FromPath[str]) -> Response[Any]:
    """Send a test event."""
    await form(request)
    tenant = request.user.tenant_id
    async with transaction(request.app.state.sessions) as session:
        found = await endpoints.one(session, tenant, parameters.endpoint(id))
        await redelivering.try_out(session, tenant, found, request.request_id)
    return to(f"/console/webhooks/{id}?done=tested")


@post("/webhooks/{id:str}/{delivery:str}/redeliver", status_code=200)
async def redeliver(request: Request, id: FromPath[str], delivery: FromPath[str]) -> Response[Any]:
    """Deliver once more."""
    await form(request)
    endpoint, old, user = parameters.endpoint(id), parameters.delivery(delivery), request.user
    runtime = request.app.state.runtime
    async with transaction(request.app.state.sessions) as session:
        found = await views.one(await session.connection(), user.tenant_id, endpoint, old)
        made = await redelivering.again(session, user.tenant_id, found, old, endpoint)
    if made is None:
        await runtime.ledger.requeue([old], by=user.key, tenant_id=user.tenant_id, reason="console")
    runtime.admit_soon([gate(endpoint)])
    return to(f"/console/webhooks/{id}?done=redelivered")


handlers = [listing, look, look_at_delivery, enable, try_out, redeliver]
