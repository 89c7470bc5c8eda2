"""A rendered mail for a caller, or, where HTML is asked for, for a sandboxed frame."""

from typing import Any

from litestar import Response

from service.templates.schemas import Content
from service.web import Request
from service.web.auth import plain_header

POLICY = "sandbox; default-src 'none'; img-src https: http: data:; style-src 'unsafe-inline'; frame-ancestors *"
"""No script, no form, no origin of its own: whatever a mail holds, it can only be looked at."""


def framed(request: Request, content: Content) -> Response[Any]:
    """Answer with JSON, or with the HTML alone where `Accept` begins with text/html."""
    media = plain_header(request, b"accept").partition(",")[0].partition(";")[0].strip().lower()
    if media != "text/html" or content.html is None:
        return Response(content)
    headers = {
        "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
    return Response(content.html, media_type="text/html", headers=headers)
