"""A short way to the routes that take nothing but the request and its body, such as `POST /v1/emails`.

Litestar resolves kwargs, dependencies, hooks and responses anew for every call, which costs these routes as much as all
else they do. Here their handlers are called with the two arguments they have; what a route declares (its scopes, its
errors, its place in the schema) holds as ever. Whatever a route has that is not known here keeps it on Litestar's way.
"""

import re
from collections.abc import Iterator
from typing import Any, cast

from litestar import Litestar
from litestar.enums import ScopeType
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from service.web import problem_details
from service.web.auth import admit
from service.web.json_response import Quick
from service.web.request import Request

HOST = re.compile(rb"[A-Za-z0-9._:\[\]-]{0,255}")
"""What needs no second look; Litestar looks at the others, and refuses some."""

TAKEN = ({"request"}, {"request", "data"})
UNTOUCHED = (
    "resolve_guards",
    "resolve_dependencies",
    "resolve_after_response",
    "resolve_response_headers",
    "resolve_response_cookies",
)


class Express:
    """Wraps the Litestar application `app`, which serves everything that has no short way."""

    def __init__(self, app: Litestar) -> None:
        self.app = app
        self.lanes = {
            (method, path): (handler, "data" in handler.parsed_fn_signature.parameters)
            for path, method, handler in _short_ways(app)
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == ScopeType.HTTP:
            lane = self.lanes.get((scope["method"], scope["path"]))
            if lane is not None and HOST.fullmatch(_host(scope)):
                answer = await self._answer(*lane, scope, receive, send)
                await answer(scope, receive, send)
                return
        await self.app(scope, receive, send)

    async def _answer(
        self, handler: HTTPRouteHandler, takes_body: bool, scope: HTTPScope, receive: Receive, send: Send
    ) -> ASGIApp:
        raw = cast("dict[str, Any]", scope)
        raw["app"] = raw["litestar_app"] = self.app
        raw["route_handler"], raw["path_template"], raw["path_params"] = handler, scope["path"], {}
        raw.setdefault("state", {})
        request = Request(scope, receive, send)
        try:
            answer = await _call(handler, takes_body, request)
        except Exception as error:
            answer = problem_details.respond(request, error)
        if isinstance(answer, Quick):
            return answer.to_asgi_response()
        return await handler.to_response(app=self.app, data=answer, request=request)


def _host(scope: HTTPScope) -> bytes:
    headers: dict[bytes, bytes] = scope["plain_headers"]  # type: ignore[typeddict-item]  # the edge's
    return headers.get(b"host", b"")


async def _call(handler: HTTPRouteHandler, takes_body: bool, request: Request) -> Any:
    refused = await admit(request)
    if refused is not None:
        return refused
    if takes_body:
        return await handler.fn(request=request, data=await request.json())
    return await handler.fn(request=request)


def _short_ways(app: Litestar) -> Iterator[tuple[str, str, HTTPRouteHandler]]:
    for route in app.routes:
        if isinstance(route, HTTPRoute) and not route.path_parameters:
            for method, (handler, _) in route.route_handler_map.items():
                if _is_plain(handler):
                    yield route.path, method, handler


def _is_plain(handler: HTTPRouteHandler) -> bool:
    """Tell whether a handler takes the request and its body, and nothing is declared that only Litestar does."""
    return (
        set(handler.parsed_fn_signature.parameters) in TAKEN
        and not handler.has_sync_callable
        and handler.resolve_before_request() is admit
        and handler.resolve_request_class() is Request
        and not handler.cache
        and not any(layer.after_request or layer.middleware for layer in handler.ownership_layers)
        and not any(getattr(handler, name)() for name in UNTOUCHED)
    )
