"""`/u/{token}`: where a reader, or the reader's mail program (RFC 8058), says no to a kind of mail."""

from urllib.parse import parse_qs

from litestar import MediaType, Response, Router, get, post
from litestar.params import FromPath

from service.core.errors import NotFound
from service.db.tenancy import acting_for
from service.suppressions.unsubscribe import unsubscribe
from service.suppressions.unsubscribe.links import Links, Reader
from service.suppressions.unsubscribe.page import State, page
from service.web import Request, transaction

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self';"
    " frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Robots-Tag": "noindex",
}
MAX_FORM = 10_000  # bytes of a form that are looked at
FORM_LIMIT = 64 * 1024  # bytes of a body, then 413


@get("/u/{token:str}", summary="Show the page to unsubscribe", media_type=MediaType.HTML, security=[{}])
async def show(request: Request, token: FromPath[str]) -> Response[str]:
    """Show what the link is for, with a button. Looking changes nothing: mail scanners open every link."""
    reader = _reader(request, token)
    if reader is None:
        return _unknown(request)
    with acting_for(reader.tenant_id):
        async with transaction(request) as session:
            gone, sender = await unsubscribe.standing(session, reader)
    return _page(State.GONE if gone else State.ASKED, reader, sender)


@post("/u/{token:str}", status_code=200, summary="Unsubscribe with one click", media_type=MediaType.HTML, security=[{}])
async def say(request: Request, token: FromPath[str]) -> Response[str]:
    """Unsubscribe (RFC 8058), whatever the body; the form field `action=resubscribe` takes it back.

    Again is harmless. There is no redirect, no cookie and no question.
    """
    reader = _reader(request, token)
    if reader is None:
        return _unknown(request)
    again = await _wants_again(request)
    with acting_for(reader.tenant_id):
        async with transaction(request) as session:
            await (unsubscribe.resubscribe if again else unsubscribe.unsubscribe)(session, reader)
            _, sender = await unsubscribe.standing(session, reader)
    return _page(State.BACK if again else State.GONE, reader, sender)


def _reader(request: Request, token: str) -> Reader | None:
    return Links.of_runtime(request.app.state.runtime).read(token)


async def _wants_again(request: Request) -> bool:
    form = (await request.body(FORM_LIMIT))[:MAX_FORM].decode("utf-8", "replace")
    return parse_qs(form).get("action") == ["resubscribe"]


def _page(state: State, reader: Reader, sender: str) -> Response[str]:
    body = page(state, topic=reader.topic, address=reader.address, sender=sender)
    return Response(body, media_type=MediaType.HTML, headers=HEADERS)


def _unknown(request: Request) -> Response[str]:
    """Answer a token that is not ours: a page to a person, a problem to a program."""
    if request.accept.best_match(["application/problem+json", "text/html"]) != "text/html":
        raise NotFound("There is no such link to unsubscribe.", code="unknown-link")
    return Response(page(State.UNKNOWN), status_code=404, media_type=MediaType.HTML, headers=HEADERS)


router = Router("/", route_handlers=[show, say], tags=["Unsubscribe"])
