"""`/v1/topics/…/followers` and `/v1/organizations/…/members`: who follows what, who belongs where."""

from collections.abc import Awaitable, Callable

from litestar import Router, delete, get, post, put
from litestar.params import FromPath, JSONBody
from litestar.response import Response
from sqlalchemy.ext.asyncio import AsyncSession

from service.notifications import user_examples as show
from service.notifications.asking import who
from service.notifications.people import FOLLOWERS, MEMBERS, Group, checked_ids, join, leave
from service.notifications.user_schemas import BelongingOut, BelongingPage, IdsRequest, Joined
from service.notifications.words import id_of
from service.web import Answer, Cursor, Limit, Pager, Request, examples, once, require, transaction

Change = Callable[..., Awaitable[int]]


@put("/topics/{topic:str}/followers/{user_id:str}", guards=[require("users:write")], status_code=204, summary="Follow")
async def follow(request: Request, topic: FromPath[str], user_id: FromPath[str]) -> None:
    """Have a user follow a topic: a category, a thread, a prompt. Both are made when first named."""
    await _change_one(request, FOLLOWERS, topic, user_id, join)


@delete("/topics/{topic:str}/followers/{user_id:str}", guards=[require("users:write")], summary="Unfollow")
async def unfollow(request: Request, topic: FromPath[str], user_id: FromPath[str]) -> None:
    """Have a user follow a topic no more. Harmless where it did not."""
    await _change_one(request, FOLLOWERS, topic, user_id, leave)


@post(
    "/topics/{topic:str}/followers",
    guards=[require("users:write")],
    status_code=200,
    summary="Have many follow",
    opt=examples(body=show.IDS, answer=show.JOINED),
)
async def follow_many(request: Request, topic: FromPath[str], data: JSONBody[IdsRequest]) -> Response[Joined]:
    """Have up to 10,000 users follow a topic: all of them, or none. Users are made when first named."""
    return await _change_many(request, FOLLOWERS, topic, data, join)


@post(
    "/topics/{topic:str}/followers/remove",
    guards=[require("users:write")],
    status_code=200,
    summary="Have many unfollow",
    opt=examples(body=show.IDS, answer=show.JOINED),
)
async def unfollow_many(request: Request, topic: FromPath[str], data: JSONBody[IdsRequest]) -> Response[Joined]:
    """Have up to 10,000 users follow a topic no more."""
    return await _change_many(request, FOLLOWERS, topic, data, leave)


@get(
    "/topics/{topic:str}/followers",
    guards=[require("users:read")],
    summary="List followers",
    opt=examples(answer=show.BELONGING),
)
async def list_followers(
    request: Request, topic: FromPath[str], *, limit: Limit = None, cursor: Cursor = None
) -> BelongingPage:
    """List who follows a topic; nobody follows one that was never named."""
    return await _page(request, FOLLOWERS, topic, Pager(request, limit, cursor, sort="no"))


@put(
    "/organizations/{organization_id:str}/members/{user_id:str}",
    guards=[require("users:write")],
    status_code=204,
    summary="Add a member",
)
async def add_member(request: Request, organization_id: FromPath[str], user_id: FromPath[str]) -> None:
    """Make a user a member of an organization. The user is made when first named."""
    await _change_one(request, MEMBERS, organization_id, user_id, join)


@delete(
    "/organizations/{organization_id:str}/members/{user_id:str}",
    guards=[require("users:write")],
    summary="Remove a member",
)
async def remove_member(request: Request, organization_id: FromPath[str], user_id: FromPath[str]) -> None:
    """Have a user belong to an organization no more. Harmless where it did not."""
    await _change_one(request, MEMBERS, organization_id, user_id, leave)


@post(
    "/organizations/{organization_id:str}/members",
    guards=[require("users:write")],
    status_code=200,
    summary="Add many members",
    opt=examples(body=show.IDS, answer=show.JOINED),
)
async def add_members(request: Request, organization_id: FromPath[str], data: JSONBody[IdsRequest]) -> Response[Joined]:
    """Make up to 10,000 users members of an organization: all of them, or none."""
    return await _change_many(request, MEMBERS, organization_id, data, join)


@get(
    "/organizations/{organization_id:str}/members",
    guards=[require("users:read")],
    summary="List members",
    opt=examples(answer=show.BELONGING),
)
async def list_members(
    request: Request, organization_id: FromPath[str], *, limit: Limit = None, cursor: Cursor = None
) -> BelongingPage:
    """List who belongs to an organization."""
    return await _page(request, MEMBERS, organization_id, Pager(request, limit, cursor, sort="no"))


async def _change_one(request: Request, group: Group, key: str, user_id: str, change: Change) -> None:
    if change is join:  # what cannot be is not there to be taken away
        id_of(key, f"/{group.key}")
        id_of(user_id, "/user_id")
    async with transaction(request) as session:
        await change(session, group, who(request), key, [user_id])


async def _change_many(request: Request, group: Group, key: str, data: IdsRequest, change: Change) -> Response[Joined]:
    id_of(key, f"/{group.key}")
    ids = checked_ids(data.users)

    async def work(session: AsyncSession) -> Answer:
        changed = await change(session, group, who(request), key, ids)
        return Answer(200, Joined(users=len(set(ids)), changed=changed))

    return await once(request, work)


async def _page(request: Request, group: Group, key: str, pager: Pager) -> BelongingPage:
    values = {
        **who(request),
        "key": key,
        "after": pager.after[0] if pager.after else 0,
        "limit": pager.fetch,
    }
    async with request.app.state.engine.connect() as connection:
        rows = list(await connection.execute(group.page(), values))
    page = pager.cut(rows, key=lambda row: [row.user_no])
    items = [BelongingOut(user_id=row.id, since=row.created_at) for row in page.items]
    return BelongingPage(items=items, next_cursor=page.next_cursor)


topics = Router("/v1", route_handlers=[follow, unfollow, follow_many, unfollow_many, list_followers], tags=["Topics"])
organizations = Router(
    "/v1", route_handlers=[add_member, remove_member, add_members, list_members], tags=["Organizations"]
)
