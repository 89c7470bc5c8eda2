"""Tasks and the stories of requests, and the one field that finds anything by its id."""

import re
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID

import sqlalchemy as sa
from litestar import Response, get, post
from litestar.params import FromPath

from callboard_workers.ledger.schema import State, messages
from service.console import scopes
from service.console.messages import CANCELED, Question, confirmed
from service.console.pages import ask, page, to, uuid_or_none
from service.console.visiting import form, question
from service.core.errors import NotFound
from service.tasks.repository import TaskReport, task, unknown_task, uuid_of
from service.timeline.find import Match, find
from service.timeline.timeline import tell
from service.web import Principal, Request

LIMIT = 50
STATES = [state.value for state in State]
PLACES = {
    "email": "emails",
    "job": "jobs",
    "broadcast": "bulk",
    "notification": "notifications",
    "webhook endpoint": "webhooks",
    "webhook delivery": "webhooks",
    "task": "tasks",
    "request": "requests",
    "template": "templates",
    "user": "users",
}
WITHOUT_PREFIX = frozenset({"email", "job"})
NARROWED = {
    "emails to": "emails",
    "suppressions of": "suppressions",
    "suppression": "suppressions",
    "domain": "domains",
    "transport": "transports",
    "key": "keys",
    "organization": "quotas",
}
"""Kinds that are shown in a list, narrowed to them."""


@get("/find")
async def find_it(request: Request) -> Response[Any]:
    """Go to the only record that an id, a name or an address names; list several; say plainly where there is none."""
    q = question(request).get("q", "")
    async with request.app.state.engine.connect() as connection:
        found = await find(connection, q, request.user.tenant_id)
    places = [(match, _place(match)) for match in found if _may_open(request.user, match)]
    if "-" in q and places and places[0][0].kind == "task":
        places = places[:1]  # a task's uuid is that of its record, too
    places = [(match, place) for match, place in places if match.kind != "task" or len(places) == 1]
    if len(places) == 1 and places[0][1] is not None:
        return to(places[0][1])
    return page(request, "find.html", q=q, found=places)


def _may_open(user: Principal, match: Match) -> bool:
    """Whether the key may read this kind of record: others are not found, as if they were not there."""
    section = PLACES.get(match.kind) or NARROWED.get(match.kind)
    return section is None or scopes.may_open(user, f"/console/{'tasks' if section == 'requests' else section}")


def _place(match: Match) -> str | None:
    """The page of a record; None where it has none."""
    id = quote(match.id, safe="/")
    if match.kind in NARROWED:
        return f"/console/{NARROWED[match.kind]}?{urlencode({'q': match.id})}"
    if match.kind not in PLACES:
        return None
    return f"/console/{PLACES[match.kind]}/{id[3:] if match.kind in WITHOUT_PREFIX else id}"


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
    return page(request, "task.html", task=await _task(request, uuid_of(id)))


@post("/tasks/{id:str}/cancel", status_code=200)
async def cancel(request: Request, id: FromPath[str]) -> Response[Any]:
    """Cancel a task, once confirmed."""
    asked, wanted = await form(request), uuid_of(id)
    if not confirmed(asked):
        return await _ask(request, wanted, "cancel", "Cancel this task?", "It will not run. This cannot be undone.")
    done = await request.app.state.runtime.ledger.cancel(wanted, request.user.tenant_id)
    return to(f"/console/tasks/{id}?done={CANCELED.get(done, 'too-late')}")


@post("/tasks/{id:str}/requeue", status_code=200)
async def requeue(request: Request, id: FromPath[str]) -> Response[Any]:
    """Requeue a dead task, or, once confirmed, one whose outcome is unknown."""
    asked, user, wanted = await form(request), request.user, uuid_of(id)
    if not confirmed(asked) and (await _task(request, wanted)).state != State.DEAD:
        words = "Its outcome is unknown: what it did may happen a second time."
        return await _ask(request, wanted, "requeue", "Requeue this task?", words)
    ledger = request.app.state.runtime.ledger
    moved = await ledger.requeue([wanted], by=user.key, tenant_id=user.tenant_id, reason="console")
    return to(f"/console/tasks/{id}?done={'requeued&n=1' if moved else 'nothing'}")


async def _task(request: Request, id: UUID) -> TaskReport:
    async with request.app.state.engine.connect() as connection:
        found = await task(connection, request.user.tenant_id, id)
    if found is None:
        raise unknown_task()
    return found


async def _ask(request: Request, id: UUID, verb: str, title: str, words: str) -> Response[str]:
    found, place = await _task(request, id), f"/console/tasks/{id}"
    about = f"{found.name}, {id}"
    label = f"{verb.capitalize()} the task"
    return ask(request, Question(title=title, words=[about, words], action=f"{place}/{verb}", label=label, back=place))


@get("/requests/{id:str}")
async def story(request: Request, id: FromPath[str]) -> Response[str]:
    """Show the whole story of a request."""
    found = None
    if re.fullmatch(r"[A-Za-z0-9._:-]{1,100}", id):  # with the colons of a cron task's
        async with request.app.state.engine.connect() as connection:
            found = await tell(connection, request.user.tenant_id, id, request.app.state.stories)
    if found is None:
        raise NotFound(f"Nothing is stored for the request {id[:80]}. Check that the id is complete.")
    return page(request, "story.html", story=found)


handlers = [find_it, listing, look, cancel, requeue, story]
