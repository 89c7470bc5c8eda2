"""`/v1/users`: who there is, where to write to them, and how they want to be told."""

import asyncio
from typing import Any

import msgspec
from litestar import Router, delete, get, patch, post, put
from litestar.params import FromPath, JSONBody
from litestar.response import Response
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from service.core.errors import Fault, Invalid
from service.users import examples as show
from service.users import import_rows, lookup, memberships_api, repository
from service.users.identifiers import id_of, unknown_user, word_faults
from service.users.models import ANY
from service.users.schemas import (
    Imported,
    PreferencesOut,
    PreferencesRequest,
    UserOut,
    UserPage,
    UserRequest,
    UsersRequest,
    UsersSet,
)
from service.users.scope import who
from service.web import Answer, Cursor, Limit, Pager, Request, accepts, examples, large_body, once, require, transaction
from service.web.row_upload import place, reader_of, rows

CATEGORIES = 200  # of one user's preferences

_ONE = text(f"SELECT {repository.COLUMNS} FROM users WHERE tenant_id = :tenant_id AND mode = :mode AND id = :id")  # noqa: S608
_PAGE = text(
    f"SELECT {repository.COLUMNS} FROM users WHERE tenant_id = :tenant_id AND mode = :mode AND id > :after"  # noqa: S608
    " ORDER BY id LIMIT :limit"
)
_DELETE = text("DELETE FROM users WHERE no = :no")
_DELETE_OWN = [
    text("DELETE FROM deliveries WHERE user_no = :no AND channel = 'inbox'"),
    text("DELETE FROM notification_keys WHERE user_no = :no"),
    text("DELETE FROM digests WHERE user_no = :no"),
]
_PREFERENCES = text("SELECT category, channel, pace FROM preferences WHERE user_no = :no ORDER BY category, channel")
_FORGET = text("DELETE FROM preferences WHERE user_no = :no")
_PREFER = text(
    "INSERT INTO preferences (user_no, category, channel, tenant_id, pace)"
    " VALUES (:no, :category, :channel, :tenant_id, :pace)"
)
_LOCK = text("SELECT no FROM users WHERE tenant_id = :tenant_id AND mode = :mode AND id = :id FOR UPDATE")


@put(
    "/users/{user_id:str}",
    guards=[require("users:write")],
    summary="Set a user",
    opt=examples(body=show.REQUEST, answer=show.USER),
)
async def put_user(request: Request, user_id: FromPath[str], data: JSONBody[UserRequest]) -> UserOut:
    """Make a user or change it. The id is the caller's own; what is not given goes back to its default."""
    values = repository.user_values(data, id_of(user_id, "/user_id"))
    async with transaction(request) as session:
        [row] = await repository.set_users(session, who(request), [values])
    return _told(row)


@post(
    "/users",
    guards=[require("users:write")],
    status_code=200,
    summary="Set many users",
    opt=examples(body=show.MANY, answer=show.MANY_SET) | large_body(),
)
async def post_users(request: Request, data: JSONBody[UsersRequest]) -> Response[UsersSet]:
    """Make or change up to 10,000 users at once: all of them, or none."""
    values = await asyncio.to_thread(repository.users_values, data.users)

    async def work(session: AsyncSession) -> Answer:
        found = await repository.set_users(session, who(request), values)
        return Answer(200, UsersSet(users=len(found), made=sum(row.made for row in found)))

    return await once(request, work)


@patch(
    "/users",
    guards=[require("users:write")],
    status_code=200,
    summary="Set all users of a file",
    opt=examples(answer=show.IMPORTED) | accepts({"text/csv": str, "application/x-ndjson": str}),
)
async def import_users(request: Request) -> Imported:
    """Read a file of users as it comes, any number of them: CSV with a header, or NDJSON, as `POST /v1/users` has them.

    Columns are `id`, `email`, `locale`, `timezone`; every other one is an attribute. Each row is what a PUT would be,
    faulty ones are named by line and left out. Some hundreds are stored at a time: send a file that broke off again.
    """
    reader = reader_of(request, import_rows.USERS)

    async def store(values: list[dict[str, Any]]) -> int:
        async with transaction(request) as session:
            return await repository.change_users(session, who(request), values)

    async with place(request):
        return await import_rows.take(rows(request, reader), import_rows.user_of, store)


@get("/users", guards=[require("users:read")], summary="List users", opt=examples(answer=show.PAGE))
async def list_users(request: Request, *, limit: Limit = None, cursor: Cursor = None) -> UserPage:
    """List users in order of their ids."""
    pager = Pager(request, limit, cursor, sort="id")
    values = {**who(request), "after": pager.after[0] if pager.after else "", "limit": pager.fetch}
    async with request.app.state.engine.connect() as connection:
        found = list(await connection.execute(_PAGE, values))
    page = pager.cut(found, key=lambda row: [row.id])
    return UserPage(items=[_told(row) for row in page.items], next_cursor=page.next_cursor)


@get("/users/{user_id:str}", guards=[require("users:read")], summary="Look at a user", opt=examples(answer=show.USER))
async def get_user(request: Request, user_id: FromPath[str]) -> UserOut:
    """Return a user."""
    async with request.app.state.engine.connect() as connection:
        row = (await connection.execute(_ONE, {**who(request), "id": user_id})).one_or_none()
    if row is None:
        raise unknown_user()
    return _told(row)


@delete("/users/{user_id:str}", guards=[require("users:write")], summary="Forget a user")
async def delete_user(request: Request, user_id: FromPath[str]) -> None:
    """Forget a user, and with it what it follows, belongs to, prefers, and its feed. Harmless where there is none."""
    async with transaction(request) as session:
        no = (await session.execute(_LOCK, {**who(request), "id": user_id})).scalar_one_or_none()
        if no is not None:
            for statement in (*_DELETE_OWN, _DELETE):
                await session.execute(statement, {"no": no})


@put(
    "/users/{user_id:str}/preferences",
    guards=[require("users:write")],
    summary="Set how a user is told",
    opt=examples(body=show.PREFERENCES, answer=show.PREFERENCES),
)
async def put_preferences(
    request: Request, user_id: FromPath[str], data: JSONBody[PreferencesRequest]
) -> PreferencesOut:
    """Set a user's preferences by category and channel; the user is made if it is not there.

    `hourly` and `daily` collect what would have been mailed into one mail for each period. A critical notification
    goes out at once whatever is preferred.
    """
    _check(data)
    id = id_of(user_id, "/user_id")
    async with transaction(request) as session:
        await repository.make_users(session, who(request), [id])
        no = (await session.execute(_LOCK, {**who(request), "id": id})).scalar_one()
        await session.execute(_FORGET, {"no": no})
        wishes = [
            {"no": no, "tenant_id": request.user.tenant_id, "category": category, "channel": channel, "pace": pace}
            for category, channels in data.categories.items()
            for channel, pace in channels.items()
        ]
        if wishes:
            await session.execute(_PREFER, wishes)
    return msgspec.convert(msgspec.to_builtins(data), PreferencesOut)


@get(
    "/users/{user_id:str}/preferences",
    guards=[require("users:read")],
    summary="Look at how a user is told",
    opt=examples(answer=show.PREFERENCES),
)
async def get_preferences(request: Request, user_id: FromPath[str]) -> PreferencesOut:
    """Return a user's preferences."""
    async with request.app.state.engine.connect() as connection:
        person = await lookup.find(connection, request.user.tenant_id, request.user.mode, user_id)
        if person is None:
            raise unknown_user()
        kept = list(await connection.execute(_PREFERENCES, {"no": person.no}))
    found: dict[str, dict[str, Any]] = {}
    for row in kept:
        found.setdefault(row.category, {})[row.channel] = row.pace
    return PreferencesOut(categories=found)


def _check(given: PreferencesRequest) -> None:
    faults: list[Fault] = []
    if len(given.categories) > CATEGORIES:
        faults.append(Fault("/categories", f"at most {CATEGORIES} categories are kept."))
    for category, channels in given.categories.items():
        pointer = f"/categories/{category.replace('~', '~0').replace('/', '~1')}"
        if category != ANY:
            faults += word_faults(category, pointer)
        if channels.get("inbox") in {"hourly", "daily"}:
            faults.append(Fault(f"{pointer}/inbox", "an inbox is immediate or off."))
    if faults:
        raise Invalid(faults)


def _told(row: Any) -> UserOut:
    return UserOut(**{name: getattr(row, name) for name in UserOut.__struct_fields__})


routers = [
    Router(
        "/v1",
        route_handlers=[
            put_user,
            post_users,
            import_users,
            list_users,
            get_user,
            delete_user,
            put_preferences,
            get_preferences,
        ],
        tags=["Users"],
    ),
    memberships_api.topics,
    memberships_api.organizations,
]
