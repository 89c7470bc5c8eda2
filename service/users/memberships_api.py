"""`/v1/topics/…/followers` and `/v1/organizations/…/members`: who follows what, who belongs where.

Both are the same routes over a table of who belongs to what; only the words differ.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from litestar import Router, delete, get, patch, post, put
from litestar.params import FromPath, JSONBody, PathParameter
from litestar.response import Response
from sqlalchemy.ext.asyncio import AsyncSession

from service.users import examples as show
from service.users import import_rows
from service.users.identifiers import id_of
from service.users.repository import FOLLOWERS, MEMBERS, Group, checked_ids, join, leave
from service.users.schemas import BelongingOut, BelongingPage, IdsRequest, Imported, Joined
from service.users.scope import who
from service.web import Answer, Cursor, Limit, Pager, Request, accepts, examples, large_body, once, require, transaction
from service.web.row_upload import place, reader_of, rows

Change = Callable[..., Awaitable[int]]


class Words(msgspec.Struct, frozen=True):
    """How the routes of a group, which stand at `within`, say what they do: `be` somebody, `belong` to `it`."""

    tag: str
    within: str
    who: str
    be: str
    belong: str
    it: str


def group_router(group: Group, words: Words) -> Router:
    """Make the routes of one group."""
    handlers = [*_one_by_one(group, words), *_many(group, words), _list(group, words)]
    return Router("/v1", route_handlers=handlers, tags=[words.tag])


def _one_by_one(group: Group, words: Words) -> list[Any]:
    Key = Annotated[str, PathParameter(name=group.key)]
    path, writes = f"{words.within}/{{user_id:str}}", [require("users:write")]

    @put(
        path,
        guards=writes,
        status_code=204,
        summary=f"Have one {words.be}",
        description=f"Have a user {words.belong} {words.it}. Both are made when first named.",
    )
    async def let_in(request: Request, key: Key, user_id: FromPath[str]) -> None:
        id_of(key, f"/{group.key}")
        id_of(user_id, "/user_id")
        async with transaction(request) as session:
            await join(session, group, who(request), key, [user_id])

    @delete(
        path,
        guards=writes,
        summary=f"Have one no longer {words.be}",
        description=f"Have a user {words.belong} {words.it} no more. Harmless where it did not.",
    )
    async def let_out(request: Request, key: Key, user_id: FromPath[str]) -> None:
        async with transaction(request) as session:  # what cannot be is not there to be taken away
            await leave(session, group, who(request), key, [user_id])

    return [let_in, let_out]


def _many(group: Group, words: Words) -> list[Any]:
    Key = Annotated[str, PathParameter(name=group.key)]
    path, writes = words.within, [require("users:write")]
    many = examples(body=show.IDS, answer=show.JOINED) | large_body()

    @post(
        path,
        guards=writes,
        status_code=200,
        summary=f"Have many {words.be}",
        description=f"Have up to 10,000 users {words.belong} {words.it}: all of them, or none. Users are made when"
        " first named.",
        opt=many,
    )
    async def let_many_in(request: Request, key: Key, data: JSONBody[IdsRequest]) -> Response[Joined]:
        return await _change_many(request, group, key, data, join)

    @post(
        f"{path}/remove",
        guards=writes,
        status_code=200,
        summary=f"Have many no longer {words.be}",
        description=f"Have up to 10,000 users {words.belong} {words.it} no more.",
        opt=many,
    )
    async def let_many_out(request: Request, key: Key, data: JSONBody[IdsRequest]) -> Response[Joined]:
        return await _change_many(request, group, key, data, leave)

    @patch(
        path,
        guards=writes,
        status_code=200,
        summary=f"Have all of a file {words.be}",
        description=f"Read a file of ids as it comes (CSV with a column `id`, or NDJSON), of any number of users who"
        f" are to {words.belong} {words.it}; faulty rows are named by line. The same file again changes nothing.",
        opt=examples(answer=show.IMPORTED) | accepts({"text/csv": str, "application/x-ndjson": str}),
    )
    async def let_file_in(request: Request, key: Key) -> Imported:
        return await _change_file(request, group, key)

    return [let_many_in, let_many_out, let_file_in]


def _list(group: Group, words: Words) -> Any:
    Key = Annotated[str, PathParameter(name=group.key)]

    @get(
        words.within,
        guards=[require("users:read")],
        summary=f"List {words.who}",
        description=f"List the {words.who} of {words.it}, in the order in which the users were made.",
        opt=examples(answer=show.BELONGING),
    )
    async def listing(request: Request, key: Key, *, limit: Limit = None, cursor: Cursor = None) -> BelongingPage:
        return await _page(request, group, key, Pager(request, limit, cursor, sort="no"))

    return listing


async def _change_many(request: Request, group: Group, key: str, data: IdsRequest, change: Change) -> Response[Joined]:
    id_of(key, f"/{group.key}")
    ids = checked_ids(data.users)

    async def work(session: AsyncSession) -> Answer:
        changed = await change(session, group, who(request), key, ids)
        return Answer(200, Joined(users=len(set(ids)), changed=changed))

    return await once(request, work)


async def _change_file(request: Request, group: Group, key: str) -> Imported:
    id_of(key, f"/{group.key}")
    reader = reader_of(request, import_rows.IDS)

    async def store(ids: list[str]) -> int:
        async with transaction(request) as session:
            return await join(session, group, who(request), key, ids)

    async with place(request):
        return await import_rows.take(rows(request, reader), import_rows.id_of_row, store)


async def _page(request: Request, group: Group, key: str, pager: Pager) -> BelongingPage:
    values = {
        **who(request),
        "key": key,
        "after": pager.after[0] if pager.after else 0,
        "limit": pager.fetch,
    }
    async with request.app.state.engine.connect() as connection:
        found = list(await connection.execute(group.page(), values))
    page = pager.cut(found, key=lambda row: [row.user_no])
    items = [BelongingOut(user_id=row.id, since=row.created_at) for row in page.items]
    return BelongingPage(items=items, next_cursor=page.next_cursor)


topics = group_router(
    FOLLOWERS, Words("Topics", "/topics/{topic:str}/followers", "followers", "follow", "follow", "a topic")
)
organizations = group_router(
    MEMBERS,
    Words(
        tag="Organizations",
        within="/organizations/{organization_id:str}/members",
        who="members",
        be="be a member",
        belong="belong to",
        it="an organization",
    ),
)
