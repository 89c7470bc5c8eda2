"""`/v1/users/{id}/feed`: what somebody's inbox holds, and what was seen, read, archived."""

import time
from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import UUID

from litestar import Response, Router, get, post
from litestar.params import FromPath, JSONBody, QueryParameter
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from service.core.errors import Fault, Invalid, NotFound
from service.core.ids import notification_uuid
from service.feeds import examples as show
from service.feeds import repository, stream_api, stream_tokens
from service.feeds.repository import LAST, Mark, Show
from service.feeds.schemas import FeedPage, Marked, MarkRequest, TokenOut, TokenRequest
from service.feeds.signals import Herald, Word
from service.feeds.stream_tokens import Grant
from service.users import lookup
from service.users.identifiers import unknown_user
from service.users.lookup import Person
from service.web import Answer, Cursor, Limit, Pager, Request, examples, once, require, transaction

MOST_IDS = 1_000

Filter = Annotated[
    Literal["all", "unread", "archived"] | None,
    QueryParameter(name="show", required=False, description="all (but what is archived), unread, or archived."),
]


@get("/users/{user_id:str}/feed", guards=[require("feed:read")], summary="Read a feed", opt=examples(answer=show.PAGE))
async def read_feed(
    request: Request, user_id: FromPath[str], *, limit: Limit = None, cursor: Cursor = None, shown: Filter = None
) -> FeedPage:
    """Return a page of a user's feed, newest first, with how much is unread and unseen."""
    chosen: Show = shown or "all"
    pager = Pager(request, limit, cursor, filters={"show": chosen}, sort="-seq")
    async with transaction(request) as session:
        person = await known(session, request, user_id)
        last_seq = await repository.number(session, person.no)
        connection = await session.connection()
        before = pager.after[0] if pager.after else LAST
        found = await repository.page(connection, person.no, chosen, before, pager.fetch)
        counts = await repository.counts(session, person.no)
    page = pager.cut(found, key=lambda item: [item.seq])
    return FeedPage(items=page.items, next_cursor=page.next_cursor, counts=counts, last_seq=last_seq or 0)


def _route(what: Mark, summary: str) -> object:
    @post(
        f"/users/{{user_id:str}}/feed/{what}",
        guards=[require("feed:write")],
        status_code=200,
        summary=summary,
        name=f"feed-{what}",
        opt=examples(body=show.MARK, answer=show.MARKED),
    )
    async def mark(request: Request, user_id: FromPath[str], data: JSONBody[MarkRequest]) -> Response[Marked]:
        """Mark items by `ids`, or all up to the number `up_to`. What is read or archived was seen.

        Marking again is harmless. Streams of the user are told the new counts.
        """
        return await _mark(request, user_id, what, data)

    return mark


mark_read = _route("read", "Mark as read")
mark_seen = _route("seen", "Mark as seen")
archive = _route("archive", "Archive")


async def _mark(request: Request, user_id: str, what: Mark, data: MarkRequest) -> Response[Marked]:
    ids = _ids(data)

    async def work(session: AsyncSession) -> Answer:
        person = await known(session, request, user_id)
        await repository.number(session, person.no)
        changed = await repository.mark(session, person.no, what, ids=ids, up_to=data.up_to or 0, undo=data.undo)
        marked.append(person)
        return Answer(200, Marked(changed=changed, counts=await repository.counts(session, person.no)))

    marked: list[Person] = []
    answer = await once(request, work)
    if marked:
        Herald.of(request.app.state.runtime).say(Word(users=[marked[0].no], marked=True))
    return answer


@post(
    "/users/{user_id:str}/stream-token",
    guards=[require("feed:read")],
    status_code=200,
    summary="Make a stream token",
    opt=examples(body=show.TOKEN_REQUEST, answer=show.TOKEN),
)
async def make_token(request: Request, user_id: FromPath[str], data: JSONBody[TokenRequest]) -> Response[TokenOut]:
    """Make a token with which a browser may follow this user's feed, and do nothing else.

    It opens streams until `expires_at`; one that is open then goes on.
    """
    async with request.app.state.engine.connect() as connection:
        await known(connection, request, user_id)
    caller = request.user
    expires = int(time.time()) + data.ttl
    grant = Grant(tenant_id=caller.tenant_id, key_id=caller.key_id, mode=caller.mode, user_id=user_id, expires=expires)
    token = stream_tokens.make(request.app.state.settings.secret_key, grant)
    told = TokenOut(token=token, expires_at=datetime.fromtimestamp(expires, UTC))
    return Response(told, headers={"Cache-Control": "no-store"})


async def known(connection: AsyncConnection | AsyncSession, request: Request, user_id: str) -> Person:
    """Find the user of a request. Raises NotFound."""
    person = await lookup.find(connection, request.user.tenant_id, request.user.mode, user_id)
    if person is None:
        raise unknown_user()
    return person


def _ids(data: MarkRequest) -> list[UUID] | None:
    if (data.ids is None) == (data.up_to is None):
        raise Invalid([Fault("", "give either ids or up_to.")])
    if data.up_to is not None and data.up_to > LAST:
        raise Invalid([Fault("/up_to", "is no number of a feed.")])
    if data.ids is None:
        return None
    if len(data.ids) > MOST_IDS:
        raise Invalid([Fault("/ids", f"{len(data.ids):,} are given; at most {MOST_IDS:,} are taken.")])
    found: list[UUID] = []
    faults: list[Fault] = []
    for index, id in enumerate(data.ids):
        try:
            found.append(notification_uuid(id))
        except NotFound:
            faults.append(Fault(f"/ids/{index}", "an id is `no_` and 32 hex digits."))
    if faults:
        raise Invalid(faults[:100])
    return found


routers = [
    Router(
        "/v1",
        route_handlers=[read_feed, mark_read, mark_seen, archive, make_token],  # type: ignore[list-item]
        tags=["Feeds"],
    ),
    stream_api.router,
]
