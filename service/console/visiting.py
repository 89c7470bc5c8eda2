"""Lets in who is signed in, reads forms that came from our own pages, and finds the key behind a sign-in."""

from typing import Any, cast
from urllib.parse import parse_qsl
from uuid import UUID

import msgspec
import structlog
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from sqlalchemy import text

from service.console.sessions import COOKIE, Session, form_token, is_form_token, unseal
from service.errors import Forbidden, ServiceError
from service.web import Principal, Request
from workers.context import correlation

OPERATOR = "operator"
FORM_LIMIT = 64 * 1024  # bytes

GOOD = text("""
SELECT scopes, mode FROM api_keys
WHERE id = :id AND tenant_id = :tenant_id AND revoked_at IS NULL
    AND (expires_at IS NULL OR expires_at > clock_timestamp())
""")


class SignInFirst(ServiceError):
    """Nobody is signed in, or no longer."""

    status, code, title = 401, "sign-in-first", "Sign in"


async def signed_in(connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
    """Let pass who is signed in with a key that still is an operator's. Raises SignInFirst. A Litestar guard."""
    settings = connection.app.state.settings
    session = unseal(settings.secret_key, connection.cookies.get(COOKIE, ""))
    if session is None:
        raise SignInFirst("Sign in to look at this.")
    act_for(session.tenant_id)
    async with connection.app.state.engine.connect() as opened:
        row = (await opened.execute(GOOD, {"id": session.key_id, "tenant_id": session.tenant_id})).one_or_none()
    if row is None or OPERATOR not in row.scopes:
        raise SignInFirst("The key of this session is revoked, expired, or not an operator's any more.")
    scope = cast("dict[str, Any]", connection.scope)
    scope["user"] = principal(session.key_id, session.tenant_id, frozenset(row.scopes), row.mode)
    scope["session_of_console"] = session


def act_for(tenant_id: UUID) -> None:
    """Bind the tenant to what this request does."""
    correlation.set(msgspec.structs.replace(correlation.get(), tenant_id=tenant_id))
    structlog.contextvars.bind_contextvars(tenant=str(tenant_id))


def principal(key_id: UUID, tenant_id: UUID, scopes: frozenset[str], mode: Any) -> Principal:
    """Make the principal of a session."""
    return Principal(tenant_id, key_id, scopes, mode, tenant=str(tenant_id), key=f"ak_{key_id.hex}")


def session_of(request: Request) -> Session:
    """The session of a request that `signed_in` let pass."""
    return cast("Session", cast("dict[str, Any]", request.scope)["session_of_console"])


def token_of(request: Request) -> str:
    """What the forms of this session carry."""
    return form_token(request.app.state.settings.secret_key, session_of(request))


async def form(request: Request) -> dict[str, list[str]]:
    """Read a form that one of our pages sent. Raises Forbidden for any other: nothing is done on its behalf."""
    found = await plain_form(request)
    given = found.get("csrf", [""])[0]
    if not is_form_token(request.app.state.settings.secret_key, session_of(request), given):
        raise Forbidden("This form is of another session: go back, reload the page and try again.", code="bad-form")
    return found


async def plain_form(request: Request) -> dict[str, list[str]]:
    """Read a form as the browser sent it. Raises Forbidden where another site sent it."""
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        raise Forbidden("This form came from another site.", code="bad-form")
    body = await request.body()
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/x-www-form-urlencoded" or len(body) > FORM_LIMIT:
        raise Forbidden("This is no form of ours.", code="bad-form")
    found: dict[str, list[str]] = {}
    for name, value in parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=2_000):
        found.setdefault(name, []).append(value.replace("\x00", ""))
    return found
