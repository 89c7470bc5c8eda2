"""Webhooks: endpoints with their success rate, deliveries with every attempt, redelivered on request."""

from typing import Any
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.console.messages import Question, confirmed, many
from service.console.pages import ask, page, to, uuid_or_none
from service.console.visiting import form
from service.db.engine import transaction
from service.web import Request
from service.webhooks import params, repository, serializers
from service.webhooks import redeliver as redelivering
from service.webhooks.models import Status, endpoint_id, gate
from service.webhooks.schemas import EndpointOut

LIMIT = 50
STATUSES = [status.value for status in Status]
RECENT = 50  # deliveries by which an endpoint is judged
HEALTH = text("""
SELECT e.id, recent.delivered, recent.failed, latest.detail FROM webhook_endpoints e
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE m.state = 'done' AND NOT coalesce(m.outcome ? 'skipped', false)) AS delivered,
        count(*) FILTER (WHERE m.state = 'dead' OR (m.state <> 'done' AND m.attempts > 0)) AS failed
    FROM (SELECT id FROM webhook_deliveries d WHERE d.endpoint_id = e.id ORDER BY id DESC LIMIT :recent) d
    JOIN messages m ON m.id = d.id
) AS recent
LEFT JOIN LATERAL (
    SELECT a.detail FROM (
        SELECT id FROM webhook_deliveries d WHERE d.endpoint_id = e.id ORDER BY id DESC LIMIT :recent
    ) d JOIN message_attempts a ON a.message_id = d.id
    WHERE a.outcome IN ('done', 'retry', 'dead') AND NOT coalesce(a.detail ? 'skipped', false)
    ORDER BY a.ended_at DESC LIMIT 1
) AS latest ON true
WHERE e.tenant_id = :tenant_id AND (CAST(:endpoint AS uuid) IS NULL OR e.id = :endpoint)
""")
WAITING = text("SELECT count(*) FROM messages WHERE gate = :gate AND state = 'queued'")


class Health(msgspec.Struct, frozen=True):
    """How an endpoint's latest deliveries went: how many were delivered and failed, and its last response."""

    delivered: int = 0
    failed: int = 0
    response: str = ""

    @property
    def rate(self) -> int | None:
        """The percentage that was delivered, rounded down; None where none was tried."""
        tried = self.delivered + self.failed
        return 100 * self.delivered // tried if tried else None


@get("/webhooks")
async def listing(request: Request) -> Response[str]:
    """List endpoints, each with its success rate and last response."""
    async with request.app.state.engine.connect() as connection:
        found = await repository.page(connection, request.user.tenant_id, limit=2 * repository.MOST)
        health = await _health(connection, request.user.tenant_id)
    shown = [(each, health.get(each.id, Health())) for each in found]
    return page(request, "webhooks.html", endpoints=shown, recent=RECENT)


async def _health(connection: AsyncConnection, tenant_id: UUID, endpoint: UUID | None = None) -> dict[str, Health]:
    """Judge the latest deliveries of each endpoint, or of one."""
    values = {"tenant_id": tenant_id, "endpoint": endpoint, "recent": RECENT}
    rows = await connection.execute(HEALTH, values)
    return {endpoint_id(row.id): Health(row.delivered, row.failed, _response(row)) for row in rows}


def _response(row: Row[Any]) -> str:
    """The last response in words: its status, else why there was none."""
    detail = row.detail or {}
    if detail.get("status"):
        return f"HTTP {detail['status']}"
    error = detail.get("error") or {}
    return str(error.get("message") or error.get("reason") or "")


@get("/webhooks/{id:str}")
async def look(request: Request, id: FromPath[str]) -> Response[str]:
    """Show an endpoint and its deliveries, newest first."""
    endpoint, status = params.endpoint(id), request.query_params.get("status", "")
    before, tenant = uuid_or_none(request.query_params.get("before")), request.user.tenant_id
    filters = {"endpoint_id": endpoint, "status": status if status in STATUSES else None, "before": before}
    async with request.app.state.engine.connect() as connection:
        told = await repository.one(connection, tenant, endpoint)
        found = await serializers.page(connection, tenant, limit=LIMIT + 1, **filters)
        health = (await _health(connection, tenant, endpoint)).get(told.id, Health())
    more = found[LIMIT - 1].task_id if len(found) > LIMIT else None
    return page(
        request, "webhook.html", endpoint=told, deliveries=found[:LIMIT], status=status, statuses=STATUSES,
        more=more, before=before, health=health, recent=RECENT,
    )  # fmt: skip


@get("/webhooks/{id:str}/{delivery:str}")
async def look_at_delivery(request: Request, id: FromPath[str], delivery: FromPath[str]) -> Response[str]:
    """Show a delivery: what is sent, and every attempt."""
    async with request.app.state.engine.connect() as connection:
        found = await serializers.one(
            connection, request.user.tenant_id, params.endpoint(id), params.delivery(delivery)
        )
    return page(request, "delivery.html", delivery=found)


@post("/webhooks/{id:str}/enabled", status_code=200)
async def enable(request: Request, id: FromPath[str]) -> Response[Any]:
    """Enable an endpoint, or disable it once the number of deliveries that this cancels is confirmed."""
    asked, endpoint, tenant = await form(request), params.endpoint(id), request.user.tenant_id
    wanted = asked.get("enabled") == ["yes"]
    async with transaction(request.app.state.sessions) as session:
        found = await repository.one(session, tenant, endpoint)
        waiting = 0 if wanted else (await session.execute(WAITING, {"gate": gate(endpoint)})).scalar_one()
        if not wanted and not confirmed(asked):
            return ask(request, _question(found, waiting))
        await repository.change(session, tenant, endpoint, {"enabled": wanted})
    return to(f"/console/webhooks/{id}?done={'enabled' if wanted else f'disabled&n={waiting}'}")


def _question(endpoint: EndpointOut, waiting: int) -> Question:
    place = f"/console/webhooks/{endpoint.id}"
    return Question(
        title="Disable this endpoint?",
        words=[
            endpoint.url,
            f"It gets no events until you enable it. {many(waiting, 'waiting delivery', 'waiting deliveries')} will be "
            "canceled; you can redeliver each of them later.",
        ],
        action=f"{place}/enabled",
        label="Disable the endpoint",
        back=place,
        fields=[("enabled", "no")],
    )


@post("/webhooks/{id:str}/test", status_code=200)
async def try_out(request: Request, id: FromPath[str]) -> Response[Any]:
    """Send a test event."""
    await form(request)
    tenant = request.user.tenant_id
    async with transaction(request.app.state.sessions) as session:
        found = await repository.one(session, tenant, params.endpoint(id))
        await redelivering.try_out(session, tenant, found, request.request_id)
    return to(f"/console/webhooks/{id}?done=tested")


@post("/webhooks/{id:str}/{delivery:str}/redeliver", status_code=200)
async def redeliver(request: Request, id: FromPath[str], delivery: FromPath[str]) -> Response[Any]:
    """Deliver an event again."""
    await form(request)
    endpoint, old, user = params.endpoint(id), params.delivery(delivery), request.user
    runtime = request.app.state.runtime
    async with transaction(request.app.state.sessions) as session:
        found = await serializers.one(await session.connection(), user.tenant_id, endpoint, old)
        made = await redelivering.again(session, user.tenant_id, found, old, endpoint)
    if made is None:
        await runtime.ledger.requeue([old], by=user.key, tenant_id=user.tenant_id, reason="console")
    runtime.admit_soon([gate(endpoint)])
    return to(f"/console/webhooks/{id}?done=redelivered")


handlers = [listing, look, look_at_delivery, enable, try_out, redeliver]
