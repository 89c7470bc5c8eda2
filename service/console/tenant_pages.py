"""Tenants: which one the session looks at and acts for, chosen by who holds an admin's key."""

from typing import Any

import structlog
from litestar import Response, get, post

from service.access.tenants import MOST, is_tenant, tenants
from service.console.pages import page, to, uuid_or_none
from service.console.visiting import carry, form, question, visit_of
from service.core.errors import Forbidden, NotFound
from service.web import Request

LIMIT = 50
NO_ADMIN = (
    "The key of this session may look at its own tenant only. Sign in with one that may look at all: "
    "callboard keys create --tenant NAME --scope '*' --scope admin"
)

log = structlog.get_logger("service.console")


@get("/tenants")
async def listing(request: Request) -> Response[str]:
    """List tenants by name; `q` is a part of one."""
    _only_admins(request)
    asked = question(request)
    q, after = asked.get("q", ""), asked.get("before", "")
    async with request.app.state.engine.connect() as connection:
        found = await tenants(connection, request.user.key_id, part=q, after=after, limit=LIMIT + 1)
    more = found[LIMIT - 1].name if len(found) > LIMIT else None
    own = visit_of(request).session.tenant_id
    return page(request, "tenants.html", tenants=found[:LIMIT], q=q, more=more, before=after, own=own, most=MOST)


@post("/tenants/switch", status_code=200)
async def switch(request: Request) -> Response[Any]:
    """Have the session act for another tenant from here on."""
    asked = await form(request)
    _only_admins(request)
    wanted = uuid_or_none(asked.get("tenant", [""])[0])
    async with request.app.state.engine.connect() as connection:
        known = wanted is not None and await is_tenant(connection, request.user.key_id, wanted)
    if wanted is None or not known:
        raise NotFound("There is no such tenant.")
    log.info("tenant_switched", to=str(wanted), key=request.user.key)
    return to("/console?done=switched", carry(request, visit_of(request).session.acting_for(wanted)))


def _only_admins(request: Request) -> None:
    if not request.user.administers:
        raise Forbidden(NO_ADMIN, code="scope-missing")


handlers = [listing, switch]
