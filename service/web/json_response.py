"""A JSON response that is only what it says: a status, headers, bytes."""

from collections.abc import Mapping
from typing import Any

from litestar import Response
from litestar.enums import ScopeType
from litestar.types import Receive, Scope, Send


class Quick(Response[bytes]):
    """A response of JSON bytes, sent as they are; from status 400 on they are `application/problem+json`.

    Litestar's own response merges headers, cookies and encoders of every layer, none of which an answer of the accept
    path has; this one costs a fifth.
    """

    def __init__(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        # Litestar's own constructor costs more than all the rest of an answer; nothing else of it is read
        self.content, self.status_code, self.headers = body, status, dict(headers)
        self.media_type = "application/problem+json" if status >= 400 else "application/json"
        self.background, self.cookies, self.encoding, self.response_type_encoders = None, [], "utf-8", {}

    def to_asgi_response(self, *_: Any, **__: Any) -> "Sending":  # type: ignore[override]
        """Make the ASGI application that sends it."""
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in self.headers.items()]
        raw.append((b"content-type", str(self.media_type).encode()))
        raw.append((b"content-length", str(len(self.content)).encode()))
        return Sending(self.status_code or 200, raw, self.content)


class Sending:
    """Sends one answer."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; a HEAD gets no body. Nothing is received."""
        body = b"" if scope["type"] == ScopeType.HTTP and scope["method"] == "HEAD" else self.body
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})
