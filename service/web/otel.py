"""A span of OpenTelemetry around each request, below the caller's; what the request enqueues is below it in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import msgspec
from litestar.enums import ScopeType

from callboard_workers.context import correlation
from callboard_workers.middleware.tracing import Tracer
from service.web import problem_details

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Message, Receive, Scope, Send
    from opentelemetry.trace import TracerProvider


class Traced:
    """Wraps the ASGI application `app`; stands inside the edge, which has read where the request comes from."""

    def __init__(self, app: ASGIApp, provider: TracerProvider | None = None) -> None:
        self.app = app
        self._tracer = Tracer("callboard.web", provider)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != ScopeType.HTTP:
            await self.app(scope, receive, send)
            return
        origin, status = correlation.get(), 0

        async def seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        attributes = {
            "http.request.method": scope["method"],
            "url.scheme": scope["scheme"],
            "callboard.request_id": origin.request_id,
        }
        with self._tracer.span(scope["method"], "SERVER", origin.headers(), attributes) as span:
            carrier = self._tracer.carrier(span)
            below = msgspec.structs.replace(origin, **carrier) if carrier else origin
            mark = correlation.set(below)
            try:
                await self.app(scope, receive, seen)
            except Exception as error:
                status = status or problem_details.translate(error).status
                raise
            finally:
                correlation.reset(mark)
                route = cast("dict[str, Any]", scope).get("path_template")
                if route:
                    span.update_name(f"{scope['method']} {route}")
                    span.set_attribute("http.route", str(route))
                span.set_attribute("http.response.status_code", status)
                if status >= 500:
                    self._tracer.fail(span, str(status))
