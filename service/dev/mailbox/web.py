"""The mailbox over HTTP: Mailpit's API, so that tests run against either, and the page."""

import asyncio
import mimetypes
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

import msgspec
from litestar import Litestar, MediaType, Request, Response, delete, get, put
from litestar.di import NamedDependency, Provide
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, FromQuery, QueryParameter

from service.dev.mailbox import view
from service.dev.mailbox.mail import Mail, Message, Summary, message
from service.dev.mailbox.sink import Received
from service.dev.mailbox.store import Store

PAGE = Path(__file__).with_name("page")
LOCAL = ("127.0.0.1", "localhost", "::1")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
NOT_SNIFFED = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# shown in the browser; everything else is saved, because a browser would run it
SHOWN = ("image/png", "image/jpeg", "image/gif", "image/webp", "application/pdf", "text/plain")

Mails = NamedDependency[Store]
Start = Annotated[int, QueryParameter(ge=0)]
Limit = Annotated[int, QueryParameter(ge=1, le=10_000)]
Query = Annotated[str, QueryParameter(name="query", min_length=1, max_length=1000)]


class Page(msgspec.Struct, frozen=True):
    """A page of mails; ``total`` and ``unread`` of the whole mailbox, ``messages_*`` of what matches."""

    total: int
    unread: int
    count: int
    messages_count: int
    messages_unread: int
    start: int
    messages: list[Summary]
    tags: list[str] = []


class Marks(msgspec.Struct, rename="pascal", frozen=True):
    """Which mails to mark; all of them without ids or search."""

    read: bool = False
    ids: list[str] = msgspec.field(name="IDs", default_factory=list)
    search: str = ""


class Doomed(msgspec.Struct, frozen=True):
    """Which mails to delete; all of them without ids."""

    ids: list[str] = msgspec.field(name="IDs", default_factory=list)


@get("/api/v1/messages")
async def list_messages(store: Mails, start: Start = 0, limit: Limit = 50) -> Page:
    """The newest mails first."""
    return await found_page(store, "", start, limit)


@get("/api/v1/search")
async def search_messages(store: Mails, text: Query, start: Start = 0, limit: Limit = 50) -> Page:
    """Mails that match, the newest first."""
    return await found_page(store, text, start, limit)


@delete("/api/v1/search", status_code=200, media_type=MediaType.TEXT)
async def delete_search(store: Mails, text: Query) -> str:
    """Deletes what matches."""
    await asyncio.to_thread(store.delete, query=text)
    return "ok"


@put("/api/v1/messages", media_type=MediaType.TEXT)
async def mark_messages(request: Request[Any, Any, Any], store: Mails) -> str:
    """Marks mails read or unread."""
    marks = msgspec.json.decode(await request.body(), type=Marks)
    await asyncio.to_thread(store.mark, marks.read, marks.ids, marks.search)
    return "ok"


@delete("/api/v1/messages", status_code=200, media_type=MediaType.TEXT)
async def delete_messages(request: Request[Any, Any, Any], store: Mails) -> str:
    """Deletes mails; all without a body or without ids."""
    body = await request.body()
    doomed = msgspec.json.decode(body, type=Doomed) if body else Doomed()
    await asyncio.to_thread(store.delete, doomed.ids)
    return "ok"


@get("/api/v1/message/{id:str}")
async def get_message(store: Mails, id: FromPath[str]) -> Message:
    """One mail, which is marked read; ``latest`` for the newest."""
    id, received = await known(store, id)
    await asyncio.to_thread(store.mark, True, [id])
    return await asyncio.to_thread(message, id, received)


@get("/api/v1/message/{id:str}/headers")
async def get_headers(store: Mails, id: FromPath[str]) -> dict[str, list[str]]:
    """Every header."""
    return (await parsed(store, id)).headers()


@get("/api/v1/message/{id:str}/raw")
async def get_raw(store: Mails, id: FromPath[str], dl: FromQuery[str] = "") -> Response[bytes]:
    """The mail as it was sent; ``dl=1`` to save it."""
    id, received = await known(store, id)
    headers = {"Content-Disposition": f'attachment; filename="{id}.eml"'} if dl else {}
    return Response(received.raw, media_type="text/plain; charset=utf-8", headers=headers | NOT_SNIFFED)


@get("/api/v1/message/{id:str}/part/{part:str}")
async def get_part(store: Mails, id: FromPath[str], part: FromPath[str]) -> Response[bytes]:
    """An attachment or an inline image."""
    mail = await parsed(store, id)
    found = next((one for one in mail.parts if one.id == part), None)
    if found is None:
        raise NotFoundException("no such part")
    shown = found.type in SHOWN
    place = "inline" if shown else "attachment"
    headers = {"Content-Disposition": f"{place}; filename*=UTF-8''{quote(found.file_name or found.id)}"}
    kind = found.type if shown else "application/octet-stream"
    return Response(found.content, media_type=kind, headers=headers | NOT_SNIFFED)


@get("/view/{name:str}")
async def view_message(store: Mails, name: FromPath[str]) -> Response[str]:
    """``<id>.html`` or ``<id>.txt``: one body as a page of its own."""
    id, _, kind = name.rpartition(".")
    mail = await parsed(store, id)
    if kind == "html" and mail.html:
        return Response(view.page(mail), media_type="text/html; charset=utf-8", headers=view.HEADERS)
    if kind == "txt":
        return Response(mail.text, media_type="text/plain; charset=utf-8", headers=view.HEADERS)
    raise NotFoundException("no such body")


@get(["/livez", "/readyz"], media_type=MediaType.TEXT)
async def healthy(store: Mails) -> str:
    """Answers while mails can be read."""
    await asyncio.to_thread(store.find, limit=1)
    return "ok"


@get(["/", "/{name:str}"])
async def page(name: FromPath[str] = "index.html") -> Response[bytes]:
    """The page and its files."""
    file = PAGE / name
    if file.parent != PAGE or not file.is_file():
        raise NotFoundException("no such page")
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Response(file.read_bytes(), media_type=f"{kind}; charset=utf-8", headers=PAGE_HEADERS)


async def known(store: Store, id: str) -> tuple[str, Received]:
    found = await asyncio.to_thread(store.source, id)
    if found is None:
        raise NotFoundException("no such mail")
    return found


async def parsed(store: Store, id: str) -> Mail:
    return await asyncio.to_thread(Mail, (await known(store, id))[1].raw)


async def found_page(store: Store, query: str, start: int, limit: int) -> Page:
    found = await asyncio.to_thread(store.find, query, start, limit)
    return Page(
        total=found.all_mails,
        unread=found.all_unread,
        count=len(found.mails),
        messages_count=found.matching,
        messages_unread=found.unread,
        start=start,
        messages=found.mails,
    )


def refuse_foreign(request: Request[Any, Any, Any]) -> Response[dict[str, str]] | None:
    """Litestar's own list of hosts wants the port in it, which differs behind a forwarded one."""
    host = urlsplit(f"//{request.headers.get('host', '')}").hostname
    if host in LOCAL:
        return None
    return Response({"Error": f"the mailbox answers to {', '.join(LOCAL)} only"}, status_code=400)


def refuse(_: Request[Any, Any, Any], error: Exception) -> Response[dict[str, str]]:
    return Response({"Error": f"the request body is not what is expected: {error}"}, status_code=400)


def create_app(store: Store, *, local: bool = True) -> Litestar:
    """The application. ``local`` refuses any other Host header, lest a web page reach it by DNS rebinding."""
    return Litestar(
        [
            list_messages,
            search_messages,
            delete_search,
            mark_messages,
            delete_messages,
            get_message,
            get_headers,
            get_raw,
            get_part,
            view_message,
            healthy,
            page,
        ],
        dependencies={"store": Provide(lambda: store, sync_to_thread=False)},
        before_request=refuse_foreign if local else None,
        exception_handlers={msgspec.DecodeError: refuse},
        openapi_config=None,
        logging_config=None,
    )
