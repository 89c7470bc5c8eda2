"""Quotas: what each organization has used of its month, and what is reserved by jobs under way."""

from litestar import Response, get

from service.console.pages import page
from service.console.visiting import question
from service.jobs.quotas import standings
from service.web import Request

LIMIT = 50


@get("/quotas")
async def listing(request: Request) -> Response[str]:
    """List organizations by id; `q` is a part of one."""
    asked = question(request)
    q, after = asked.get("q", ""), asked.get("before", "")
    async with request.app.state.engine.connect() as connection:
        found = await standings(connection, request.user.tenant_id, part=q, after=after, limit=LIMIT + 1)
    more = found[LIMIT - 1].organization_id if len(found) > LIMIT else None
    return page(request, "quotas.html", organizations=found[:LIMIT], q=q, more=more, before=after)


handlers = [listing]
