"""Bulks: how far each is, by the state of its mails; paused, resumed, canceled."""

from typing import Any

from litestar import Response, get, post
from litestar.params import FromPath

from service.console.pages import page, to, uuid_or_none
from service.console.visiting import form
from service.emails.bulk import changing, keeping, telling
from service.errors import NotFound
from service.web import Request

LIMIT = 50
VERBS = {"pause": changing.pause, "resume": changing.resume, "cancel": changing.cancel}


@get("/bulk")
async def listing(request: Request) -> Response[str]:
    """List bulks, newest first, each with its counts."""
    before = uuid_or_none(request.query_params.get("before"))
    async with request.app.state.engine.connect() as connection:
        found = await keeping.page(connection, request.user.tenant_id, before, LIMIT + 1)
        told = await telling.told(connection, found[:LIMIT])
    more = str(found[LIMIT - 1].id) if len(found) > LIMIT else None
    return page(request, "bulks.html", bulks=told, more=more, before=before)


@post("/bulk/{id:str}/{verb:str}", status_code=200)
async def act(request: Request, id: FromPath[str], verb: FromPath[str]) -> Response[Any]:
    """Pause, resume or cancel a bulk."""
    await form(request)
    bulk, change = uuid_or_none(id.removeprefix("bk_")), VERBS.get(verb)
    if bulk is None or change is None:
        raise NotFound("There is nothing at this path.")
    async with request.app.state.engine.begin() as connection:
        await change(connection, await changing.locked(connection, bulk, request.user.tenant_id))
    return to("/console/bulk?done=" + {"pause": "paused", "resume": "resumed"}.get(verb, "canceled"))


handlers = [listing, act]
