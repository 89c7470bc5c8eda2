"""Tasks and the stories of requests, and the one field that finds anything by its id."""

import re
from typing import Any
from urllib.parse import urlencode

import sqlalchemy as sa
from litestar import Response, get, post
from litestar.params import FromPath

from service.console.pages import CANCELED, page, to, uuid_or_none
from service.console.visiting import form, question
from service.errors import NotFound
from service.tasks.reading import task, unknown_task, uuid_of
from service.tasks.story import tell
from service.web import Request
from workers.ledger.schema import State, messages

LIMIT = 50
STATES = [state.value for state in State]
PLACES = {"em": "emails", "jb": "jobs"}
WHOLE = {"no": "notifications", "wh": "webhooks"}


@get("/find")
async def find(request: Request) -> Response[Any]:
    """Go to what an id names: a mail, a job, a notification, an endpoint, a task, a request; or mails to an address."""
    q = question(request).get("q", "")
    kind, _, digits = q.partition("_")
    if re.fullmatch(r"[0-9a-f]{32}", digits) and kind in PLACES:
        return to(f"/console/{PLACES[kind]}/{digits}")
    if re.fullmatch(r"[0-9a-f]{32}", digits) and kind in WHOLE:
        return to(f"/console/{WHOLE[kind]}/{q}")
    if "@" in q:
        return to(f"/console/emails?{urlencode({'q': q})}")
    if (id := uuid_or_none(q)) is not None and "-" in q:
        return to(f"/console/tasks/{id}")
    if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", q):
        return to(f"/console/requests/{q}")
    return to("/console")


@get("/tasks")
async def listing(request: Request) -> Response[str]:
    """List tasks, newest first."""
    asked = question(request)
    state, actor = asked.get("state", ""), asked.get("actor", "")
    before = uuid_or_none(asked.get("before"))
    statement = sa.select(messages).where(messages.c.tenant_id == request.user.tenant_id)
    statement = statement.where(messages.c.state == state) if state in STATES else statement
    statement = statement.where(messages.c.actor == actor) if actor else statement
    statement = statement.where(messages.c.id < before) if before is not None else statement
    async with request.app.state.engine.connect() as connection:
        found = (await connection.execute(statement.order_by(messages.c.id.desc()).limit(LIMIT + 1))).all()
    more = str(found[LIMIT - 1].id) if len(found) > LIMIT else None
    return page(
        request, "tasks.html", tasks=found[:LIMIT], state=state, states=STATES, actor=actor, more=more, before=before
    )


@get("/tasks/{id:str}")
async def look(request: Request, id: FromPath[str]) -> Response[str]:
    """Show a task with every attempt."""
    async with request.app.state.engine.connect() as connection:
        found = await task(connection, request.user.tenant_id, uuid_of(id))
    if found is None:
        raise unknown_task()
    return page(request, "task.html", task=found)


@post("/tasks/{id:str}/{verb:str}", status_code=200)
async def act(request: Request, id: FromPath[str], verb: FromPath[str]) -> Response[Any]:
    """Cancel a task, or queue a dead one again."""
    await form(request)
    ledger, user, wanted = request.app.state.runtime.ledger, request.user, uuid_of(id)
    if verb == "requeue":
        moved = await ledger.requeue([wanted], by=user.key, tenant_id=user.tenant_id, reason="console")
        return to(f"/console/tasks/{id}?done={'requeued' if moved else 'nothing'}")
    if verb != "cancel":
        raise NotFound("There is nothing at this path.")
    done = await ledger.cancel(wanted, user.tenant_id)
    return to(f"/console/tasks/{id}?done={CANCELED.get(done, 'too-late')}")


@get("/requests/{id:str}")
async def story(request: Request, id: FromPath[str]) -> Response[str]:
    """Show the whole story of a request."""
    found = None
    if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", id):
        async with request.app.state.engine.connect() as connection:
            found = await tell(connection, request.user.tenant_id, id, request.app.state.stories)
    if found is None:
        raise NotFound(f"Nothing is stored for a request {id[:80]}: nothing that it asked for was accepted.")
    return page(request, "story.html", story=found)


handlers = [find, listing, look, act, story]
