"""Lets in who is signed in, reads forms that came from our own pages, and finds the key behind a sign-in."""

from typing import Any, cast
from urllib.parse import parse_qsl
from uuid import UUID

import msgspec
import structlog
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.context import correlation
from service.console import scopes
from service.console.attention import Attention, attention
from service.console.sessions import COOKIE, Session, cookie, form_token, is_form_token, seal, unseal
from service.core.errors import BadRequest, Forbidden, ServiceError
from service.db.tenancy import acting_for, mode_of
from service.web import Principal, Request

FORM_LIMIT = 64 * 1024  # bytes, then 413
FORM_FIELDS = 2_000
SHOWN = "callboard-tenant"  # the header in which a page that refreshes itself names the tenant it shows

LOOK = text("SELECT tenant_id, scopes, name FROM access_session(:session, :key_id, :acting)")
BEGIN = text("""
INSERT INTO console_sessions (id, tenant_id, key_id, until)
SELECT :id, :tenant_id, :key_id, to_timestamp(:until) WHERE access_key_is_good(:key_id)
""")
END = text("DELETE FROM console_sessions WHERE id = :id")


OVER = "This session has ended, or its key is revoked, expired, or may not open this any more."

log = structlog.get_logger("service.console")


class SignInFirst(ServiceError):
    """Nobody is signed in, or no longer."""

    status, code, title = 401, "sign-in-first", "Sign in"


class OtherTenant(ServiceError):
    """The page shows a tenant that this session has left since."""

    status, code, title = 409, "other-tenant", "Another tenant"


class Visit(msgspec.Struct, frozen=True):
    """A request of who is signed in: the session, the name of the tenant that it acts for, and what needs attention."""

    session: Session
    tenant: str
    attention: Attention = Attention()


async def signed_in(connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
    """Let pass who is signed in with a key that still is an operator's, for another tenant an admin's.

    Raises SignInFirst, OtherTenant, and Forbidden where the key lacks the scope of the page. A Litestar guard.
    """
    settings = connection.app.state.settings
    session = unseal(settings.secret_key, connection.cookies.get(COOKIE, ""))
    if session is None:
        raise SignInFirst("Sign in to look at this.")
    user, tenant = await _look(connection.app.state.engine, session)
    if connection.headers.get(SHOWN, str(session.acting)) != str(session.acting):
        raise OtherTenant("Another tenant was chosen meanwhile: reload the page.")
    act_for(session.acting)
    scope = cast("dict[str, Any]", connection.scope)
    scope["user"] = user
    scope["visit"] = Visit(session, tenant, await attention(connection.app.state, session.acting))
    scopes.check(user, scope["method"], scope["path_template"])


async def _look(engine: AsyncEngine, session: Session) -> tuple[Principal, str]:
    """Check that nobody signed out of this session and that its key is still good. Raises SignInFirst."""
    values = {"session": session.id, "key_id": session.key_id, "acting": session.acting}
    async with engine.connect() as opened:
        row = (await opened.execute(LOOK, values)).one_or_none()
    if row is None or row.tenant_id != session.tenant_id:
        raise SignInFirst(OVER)
    user = principal(session.key_id, session.acting, frozenset(row.scopes))
    if not user.operates or not (user.administers or session.acting == session.tenant_id):
        raise SignInFirst(OVER)
    return user, row.name if user.mode == "live" else f"{row.name} (test mode)"


async def begin(request: Request, key_id: UUID, tenant_id: UUID) -> dict[str, str]:
    """Store a new session of a key and write the header that gives it to the browser."""
    session = Session.begin(key_id, tenant_id)
    with acting_for(tenant_id):
        async with request.app.state.engine.begin() as opened:
            values = {"id": session.id, "tenant_id": tenant_id, "key_id": key_id, "until": session.until}
            await opened.execute(BEGIN, values)
    return carry(request, session)


async def end(request: Request) -> dict[str, str]:
    """Delete the session of a request, in every tenant it acted for, and write the header that takes it away."""
    session = visit_of(request).session
    with acting_for(session.tenant_id):
        async with request.app.state.engine.begin() as opened:
            await opened.execute(END, {"id": session.id})
    return carry(request, None)


def act_for(tenant_id: UUID) -> None:
    """Bind the tenant to what this request does."""
    correlation.set(msgspec.structs.replace(correlation.get(), tenant_id=tenant_id))


def principal(key_id: UUID, tenant_id: UUID, scopes: frozenset[str]) -> Principal:
    """Make the principal of a session, in the mode of the tenant id that it acts for."""
    return Principal(tenant_id, key_id, scopes, mode_of(tenant_id), tenant=str(tenant_id), key=f"ak_{key_id.hex}")


def visit_of(request: Request) -> Visit:
    """The visit that a request belongs to which `signed_in` let pass."""
    return cast("Visit", cast("dict[str, Any]", request.scope)["visit"])


def token_of(request: Request) -> str:
    """What the forms of this session carry."""
    return form_token(request.app.state.settings.secret_key, visit_of(request).session)


def question(request: Request) -> dict[str, str]:
    """What the address asks for, by name, without space around it; the edge has refused NUL."""
    return {name: value.strip() for name, value in request.query_params.items()}


def carry(request: Request, session: Session | None) -> dict[str, str]:
    """Write the header that gives the browser this session; None takes away what it has."""
    settings = request.app.state.settings
    value = "" if session is None else seal(settings.secret_key, session)
    return {"Set-Cookie": cookie(value, secure=settings.public_url.startswith("https:"))}


async def form(request: Request) -> dict[str, list[str]]:
    """Read a form that one of our pages sent. Raises Forbidden for any other: nothing is done on its behalf."""
    found = await plain_form(request)
    given = found.get("csrf", [""])[0]
    if not is_form_token(request.app.state.settings.secret_key, visit_of(request).session, given):
        raise Forbidden(
            "This form is of another session or tenant: go back, reload the page and try again.",
            code="bad-form",
        )
    log.info("form_sent", route=request.scope["path_template"], key=request.user.key)
    return found


async def plain_form(request: Request) -> dict[str, list[str]]:
    """Read a form as the browser sent it. Raises Forbidden where another site sent it, TooLarge, BadRequest."""
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        raise Forbidden("This form came from another site.", code="bad-form")
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/x-www-form-urlencoded":
        raise Forbidden("This is no form of ours.", code="bad-form")
    body = await request.body(FORM_LIMIT)
    found: dict[str, list[str]] = {}
    try:
        fields = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=FORM_FIELDS)
    except ValueError:
        raise BadRequest(f"The form has more than {FORM_FIELDS:,} fields.", code="bad-form") from None
    for name, value in fields:
        found.setdefault(name, []).append(value.replace("\x00", ""))
    return found
