"""The front door: `/` says what this is and where to go, `/errors/{code}` what an error means."""

import re
from typing import Any

from litestar import Request, Response, Router, get
from litestar.params import FromPath

from service.core.errors import NotFound
from service.web.openapi import ERRORS

LINKS = {
    "console": "/console",
    "schema": "/schema",
    "openapi": "/schema/openapi.json",
    "live": "/health/live",
    "ready": "/health/ready",
    "metrics": "/metrics",
}
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Callboard</title><style>:root{{color-scheme:light dark;--ground:#f7f7f5;--ink:#1c1c1a;--accent:#0f766e}}
@media(prefers-color-scheme:dark){{:root{{--ground:#131312;--ink:#ecebe6;--accent:#2bb3a5}}}}
body{{font:17px/1.6 system-ui,sans-serif;max-width:40rem;margin:12vh auto;padding:0 1.5rem;background:var(--ground);
color:var(--ink)}}a{{color:var(--accent)}}li{{margin:.3rem 0}}</style>
<main><h1>Callboard</h1><p>Everything that must happen after the response: never lost, never sent twice.</p>
<ul>{links}</ul></main></html>"""
NAMES = {
    "console": "Console: emails, broadcasts, jobs, failures",
    "schema": "API documentation",
    "openapi": "OpenAPI as JSON",
    "live": "Whether the API runs",
    "ready": "Whether everything it needs responds",
    "metrics": "Metrics for Prometheus",
}
"""Names of the links on the page."""
CODES = dict(ERRORS.values())


@get("/", summary="What this is", tags=["Operations"], security=[{}], include_in_schema=False)
async def front(request: Request[Any, Any, Any]) -> Response[Any]:
    """Answer a page to a browser, the links as JSON to anything else."""
    if request.accept.best_match(["application/json", "text/html"]) == "text/html":
        links = "".join(f'<li><a href="{path}">{NAMES[name]}</a></li>' for name, path in LINKS.items())
        policy = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
        return Response(PAGE.format(links=links), media_type="text/html", headers=policy)
    return Response({"name": "callboard", "links": LINKS}, media_type="application/json")


@get("/errors/{code:str}", include_in_schema=False)
async def explain(code: FromPath[str]) -> dict[str, str]:
    """Explain the code of an error; it is what `type` of a problem points to."""
    if not re.fullmatch(r"[a-z0-9-]{1,64}", code):
        raise NotFound("There is no such error.")
    meaning = CODES.get(
        code, "The `detail` of the error says what to do; `errors`, where it is there, names each fault."
    )
    return {"code": code, "meaning": meaning, "schema": "/schema"}


router = Router("/", route_handlers=[front, explain])
