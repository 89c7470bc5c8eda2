"""The outermost layer of the API: every request gets an id, an end, one line in the log and its place in the metrics.

It wraps the whole application, because a framework's middleware never sees 404 and 405.
"""

import re
import time
from datetime import UTC, datetime
from typing import Any, cast

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send
from uuid_utils import uuid7

from callboard_workers.context import Correlation, correlation
from service.core.errors import BadRequest, NotFound, ServiceError, Unauthenticated
from service.core.logging import lean
from service.web import problem_details
from service.web.auth import Principal
from service.web.metrics import HttpMetrics

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
TRACEPARENT = re.compile(rb"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
PRINTABLE = re.compile(rb"[\x20-\x7e]{1,2048}")
QUERY_KEY = re.compile(rb"cb(?:_|%5f)(?:live|test)(?:_|%5f)", re.IGNORECASE)


class Edge:
    """Wraps the ASGI application `app`."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; lifespan passes through, and so does a websocket, with its id."""
        if scope["type"] != ScopeType.HTTP:
            if scope["type"] == ScopeType.WEBSOCKET:
                identify(scope)
            await self.app(scope, receive, send)
            return
        origin = identify(scope)
        mark = correlation.set(origin)
        try:
            await self._serve(scope, receive, send, cast("str", origin.request_id))
        finally:
            correlation.reset(mark)

    async def _serve(self, scope: HTTPScope, receive: Receive, send: Send, request_id: str) -> None:
        started = time.perf_counter()
        stamp = (b"x-request-id", request_id.encode())
        status = 0

        async def stamped(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], stamp, *cast("Any", scope).get("limits", ())]
            await send(message)

        self.metrics.begin()
        try:
            if scope["query_string"] and QUERY_KEY.search(scope["query_string"]):
                raise Unauthenticated("A key in the address ends up in logs: send it in the Authorization header.")
            if "\0" in scope["path"]:
                raise NotFound("There is nothing at this path.")
            if b"%00" in scope["query_string"]:
                raise BadRequest("The character U+0000 is in the query string.", code="bad-query")
            await self.app(scope, receive, stamped)
        except Exception as error:
            known = problem_details.translate(error)
            if known.status >= 500:
                problem_details.note(error, known)
            if status:  # the answer has begun: all that is left is to cut it
                raise
            await refuse(stamped, request_id, known)
        finally:
            self._finish(scope, request_id, status or 499, time.perf_counter() - started)

    def _finish(self, scope: HTTPScope, request_id: str, status: int, took: float) -> None:
        route = str(scope.get("path_template") or "unmatched")
        self.metrics.end(scope["method"], route, status, took)
        if status < 400 and route in QUIET:
            return
        caller = cast("Principal | None", scope.get("user"))
        fields: dict[str, Any] = {
            "request_id": request_id,
            "method": scope["method"],
            "route": route,
            "status": status,
            "ms": round(took * 1000, 2),
        }
        if caller is not None:
            fields["tenant"] = caller.tenant
            fields["key_id"] = caller.key
        lean("request_done", fields)


QUIET = frozenset({"/health/live", "/health/ready", "/metrics"})


def identify(scope: Scope) -> Correlation:
    """Read or make the request's id, and read its trace context; malformed values are replaced or dropped."""
    given = dict(cast("list[tuple[bytes, bytes]]", scope["headers"]))
    request_id = given.get(b"x-request-id", b"")
    made = request_id.decode() if REQUEST_ID.fullmatch(request_id) else uuid7().hex
    raw = cast("dict[str, Any]", scope)
    raw["request_id"] = made
    raw["received_at"] = datetime.now(UTC)
    raw["plain_headers"] = given
    trace = _matching(TRACEPARENT, given.get(b"traceparent"))
    return Correlation(
        request_id=made,
        traceparent=trace,
        tracestate=_matching(PRINTABLE, given.get(b"tracestate")) if trace else None,
        baggage=_matching(PRINTABLE, given.get(b"baggage")),
    )


def _matching(pattern: re.Pattern[bytes], value: bytes | None) -> str | None:
    return value.decode() if value and pattern.fullmatch(value) else None


async def refuse(send: Send, request_id: str, error: ServiceError) -> None:
    """Answer a problem without the framework."""
    body = problem_details.encode(request_id, error)
    headers = [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
    headers += [(b"content-type", problem_details.MEDIA.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
