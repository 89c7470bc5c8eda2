"""A slice of tests: books on a shelf, through every piece of the HTTP plumbing."""

from typing import Annotated, Any

import msgspec
from litestar import Response, Router, get, post
from litestar.params import FromPath, FromQuery, JSONBody
from sqlalchemy import text
from uuid_utils.compat import uuid7

from callboard_workers.context import correlation
from callboard_workers.message import Message
from service.core.errors import Conflict, ServiceError, TooManyRequests
from service.web import (
    Answer,
    Body,
    Cursor,
    Limit,
    Outcome,
    Page,
    Pager,
    Request,
    Submission,
    Table,
    accept,
    once,
    preferred_wait,
    require,
    transaction,
    wait_for,
)

TABLE = "CREATE TABLE books (id uuid PRIMARY KEY, tenant_id uuid NOT NULL, title text NOT NULL, code text UNIQUE)"
ISOLATION = """
ALTER TABLE books ENABLE ROW LEVEL SECURITY;
ALTER TABLE books FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON books TO callboard_api USING (tenant_id = ANY ((SELECT app_tenants())::uuid[]));
GRANT ALL ON books TO callboard_api;
"""
BOOKS = Table("books", (("id", "uuid"), ("tenant_id", "uuid"), ("title", "text"), ("code", "text")))


async def slow() -> None:
    """What a note of this title waits for; a test may put something else here."""


class NewBook(Body):
    title: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    pages: Annotated[int, msgspec.Meta(ge=1)] = 1
    data: dict[str, Any] = msgspec.field(default_factory=dict)
    code: str | None = None


class Book(msgspec.Struct):
    id: str
    title: str


@post("/v1/books", guards=[require("books:write")], summary="Put a book", status_code=202)
async def put_book(request: Request, data: JSONBody[NewBook]) -> Response[Any]:
    id_ = uuid7()
    origin = correlation.get()
    message = Message(id=id_, actor="books.print", tenant_id=request.user.tenant_id, headers=origin.headers())
    answer = Answer(202, {"id": str(id_), "title": data.title}, {"Location": f"/v1/books/{id_}"})
    record = (id_, request.user.tenant_id, data.title, data.code)
    submission = Submission(
        records=[record], messages=[(id_, message)], answer=answer, may_conflict=data.code is not None
    )
    got = await accept(request, BOOKS, submission)
    if got.outcome is Outcome.RECORD_CONFLICT:
        raise Conflict("There is a book with this code.")
    return got.answer.response(replayed=got.outcome is Outcome.REPLAYED)


@post("/v1/notes", guards=[require("books:write")], summary="Note a book")
async def note_book(request: Request, data: JSONBody[NewBook]) -> Response[Any]:
    async def work(session: Any) -> Answer:
        id_ = uuid7()
        await session.execute(
            text("INSERT INTO books (id, tenant_id, title) VALUES (:id, :tenant, :title)"),
            {"id": id_, "tenant": request.user.tenant_id, "title": data.title},
        )
        if data.title == "slow":
            await slow()
        if data.title == "refused":
            raise Conflict("Refused.")
        if data.title == "later":
            raise TooManyRequests("Later.", retry_after=7)
        if data.title == "broken":
            raise ServiceError("Broken.")
        return Answer(201, {"id": str(id_), "z": 1, "a": 2}, {"Location": f"/v1/books/{id_}"})

    return await once(request, work)


@get("/v1/books", guards=[require("books:read")], summary="List books")
async def list_books(
    request: Request, limit: Limit = None, cursor: Cursor = None, title: FromQuery[str] = ""
) -> Page[Book]:
    pager = Pager(request, limit, cursor, filters={"title": title})
    sql = (
        "SELECT id, title FROM books WHERE tenant_id = :tenant AND title LIKE :title || '%'"
        " AND id < CAST(:after AS uuid) ORDER BY id DESC LIMIT :fetch"
    )
    after = pager.after[0] if pager.after else "ffffffff-ffff-ffff-ffff-ffffffffffff"
    values = {"tenant": request.user.tenant_id, "title": title, "after": after, "fetch": pager.fetch}
    async with transaction(request) as session:
        rows = (await session.execute(text(sql), values)).all()
    return pager.cut([Book(str(row.id), row.title) for row in rows], lambda book: [book.id])


@get("/v1/books/{book_id:str}", guards=[require("books:read")], summary="Wait for a book")
async def read_book(request: Request, book_id: FromPath[str]) -> Response[Any]:
    async def look() -> str | None:
        async with transaction(request) as session:
            sql = text("SELECT title FROM books WHERE id = CAST(:id AS uuid)")
            return (await session.execute(sql, {"id": book_id})).scalar_one_or_none()

    title, done = await wait_for(look, lambda found: found == "done", preferred_wait(request))
    return Response({"title": title}, status_code=200 if done else 202)


@get("/v1/boom", guards=[require()], summary="Fail")
async def boom(request: Request) -> None:
    raise RuntimeError(f"the password is hunter2, {request.request_id}")


@get("/v1/sleep", guards=[require()], summary="Hold a connection")
async def sleep(request: Request) -> str:
    async with transaction(request) as session:
        await session.execute(text("SELECT pg_sleep(30)"))
    return "slept"


@get("/v1/whoami", guards=[require()], summary="Who calls")
async def whoami(request: Request) -> dict[str, Any]:
    origin = correlation.get()
    return {"tenant": str(request.user.tenant_id), "mode": request.user.mode, "correlation": origin.headers()}


router = Router("/", route_handlers=[put_book, note_book, list_books, read_book, boom, sleep, whoami])
