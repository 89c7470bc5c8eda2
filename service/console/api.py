"""`/console`: the pages, the files they load, and what a browser is shown when something is wrong."""

import functools
from typing import Any, cast

from litestar import Request as AnyRequest
from litestar import Response, Router, get
from litestar.exceptions import HTTPException
from litestar.params import FromPath

from service.console import (
    bulk_pages,
    dead_pages,
    job_pages,
    mail_pages,
    notification_pages,
    overview,
    pages,
    people_pages,
    quota_pages,
    sending_pages,
    signing_in,
    task_pages,
    template_pages,
    tenant_pages,
    webhook_pages,
)
from service.console.visiting import OtherTenant, SignInFirst, signed_in
from service.core.errors import NotFound
from service.web import Request
from service.web.problem_details import note, translate

TYPES = {"console.css": "text/css", "console.js": "text/javascript", "htmx.min.js": "text/javascript"}


@get("/static/{name:str}", include_in_schema=False)
async def static(request: Request, name: FromPath[str]) -> Response[bytes]:
    """Answer one of our own files; a browser keeps it where it asked for the version that this process has."""
    if name not in TYPES:
        raise NotFound("There is no such file.")
    wanted = f"{request.scope['path']}?{request.scope['query_string'].decode('latin-1')}"
    kept = "public, max-age=31536000, immutable" if wanted == pages.file(name) else "no-store"
    headers = {"Cache-Control": kept, "X-Content-Type-Options": "nosniff"}
    return Response(_file(name), media_type=TYPES[name], headers=headers)


@functools.cache
def _file(name: str) -> bytes:
    return (pages.HERE / "static" / name).read_bytes()


def show_error(request: AnyRequest[Any, Any, Any], error: Exception) -> Response[str]:
    """Answer a page that says what is wrong and what to do; to a page that refreshes itself: sign in again."""
    known = translate(error)
    if known.status >= 500:
        note(error, known)
    if isinstance(known, SignInFirst):
        if "hx-request" in request.headers:
            return pages.rendered("empty.html", {}, status=401, headers={"HX-Redirect": signing_in.PATH})
        return signing_in.door(request.scope["path"], status=401)
    if isinstance(known, OtherTenant):
        return pages.rendered("empty.html", {}, status=known.status, headers={"HX-Refresh": "true"})
    values = {"error": known, "request_id": request.scope.get("request_id", "")}
    if "visit" in request.scope:
        return pages.page(cast("Request", request), "lost.html", http_status=known.status, **values)
    return pages.rendered("error.html", values, status=known.status)


@get("/{path:path}")
async def lost(path: FromPath[str]) -> Response[str]:
    """Say on a page with its navigation that there is no such page."""
    raise NotFound(f"There is no page /console{path[:200]}.")


def warm() -> None:
    """Compile the templates before the first visitor."""
    made = pages.environment()
    for name in made.list_templates(extensions=["html"]):
        made.get_template(name)


routers = [
    Router(
        "/console",
        route_handlers=[
            static,
            *signing_in.handlers,
            Router(
                "/",
                route_handlers=[
                    *overview.handlers,
                    *mail_pages.handlers,
                    *bulk_pages.handlers,
                    *job_pages.handlers,
                    *notification_pages.handlers,
                    *webhook_pages.handlers,
                    *dead_pages.handlers,
                    *task_pages.handlers,
                    *quota_pages.handlers,
                    *tenant_pages.handlers,
                    *template_pages.handlers,
                    *sending_pages.handlers,
                    *people_pages.handlers,
                    lost,
                ],
                guards=[signed_in],
            ),
        ],
        include_in_schema=False,
        exception_handlers={Exception: show_error, HTTPException: show_error, 500: show_error},
    )
]
