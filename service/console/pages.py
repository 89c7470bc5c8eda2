"""Renders pages: one environment, the same headers on every answer, and the words and shapes that pages share."""

import functools
import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import jinja2
import msgspec
from litestar import Response

from service.console import scopes, sparkline, wording
from service.console.messages import Question, message
from service.console.reasons import plain_reason
from service.console.visiting import token_of, visit_of
from service.timeline.text import flat, humane, plain
from service.web import Request
from service.web.openapi import as_code

HERE = Path(__file__).parent
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}

FRAME = HEADERS | {
    "Content-Security-Policy": "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "frame-ancestors 'self'"
}
"""Headers of an email in a frame in which nothing runs and nothing is loaded."""

SECTIONS = (
    ("Overview", "/console", ""),
    ("Emails", "/console/emails", "Email"),
    ("Broadcasts", "/console/bulk", ""),
    ("Templates", "/console/templates", ""),
    ("Suppressions", "/console/suppressions", ""),
    ("Domains", "/console/domains", ""),
    ("Transports", "/console/transports", ""),
    ("Notifications", "/console/notifications", "Users"),
    ("Users", "/console/users", ""),
    ("Dead letters", "/console/dead-letters", "Work"),
    ("Tasks", "/console/tasks", ""),
    ("Jobs", "/console/jobs", ""),
    ("Quotas", "/console/quotas", ""),
    ("Webhooks", "/console/webhooks", "Access"),
    ("Keys", "/console/keys", ""),
)
"""Name, path, and the heading of the group that a section begins."""

TONES = {
    **dict.fromkeys(("sent", "delivered", "completed", "done", "ready", "well", "enabled", "SUCCESS"), "good"),
    **dict.fromkeys(("verified", "active"), "good"),
    **dict.fromkeys(("queued", "pending", "scheduled", "PENDING", "rested", "revoked", "open", "canceled"), "calm"),
    **dict.fromkeys(("sending", "processing", "running", "resolving", "STARTED", "RETRY"), "busy"),
    **dict.fromkeys(("uncertain", "held", "degraded", "deferred", "suppressed", "expired", "retry", "stalled"), "warn"),
    **dict.fromkeys(("paused", "waiting", "delayed"), "warn"),
    **dict.fromkeys(("failed", "dead", "bounced", "complained", "unready", "away", "FAILURE", "disabled"), "bad"),
    **dict.fromkeys(("failing", "stopped", "refused"), "bad"),
}
"""The colour of a status; what is not here is neutral."""


def page(request: Request, template: str, /, *, http_status: int = 200, **values: Any) -> Response[str]:
    """Answer a page of who is signed in."""
    visit = visit_of(request)
    shared = {
        "sections": [each for each in SECTIONS if scopes.may_open(request.user, each[1])],
        "attention": visit.attention,
        "may": request.user.may,
        "path": request.scope["path"],
        "csrf": token_of(request),
        "done": message(request.query_params),
        "tenant": visit.tenant,
        "acting": visit.session.acting,
        "away": visit.session.acting != visit.session.tenant_id,
        "administers": request.user.administers,
    }
    return rendered(template, {**shared, **values}, status=http_status)


def rendered(
    template: str, values: Mapping[str, Any], *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response[str]:
    """Render a template as an answer with every header a page has."""
    text = environment().get_template(template).render(values)
    return Response(text, status_code=status, media_type="text/html", headers={**HEADERS, **(headers or {})})


def ask(request: Request, question: Question) -> Response[str]:
    """Show the question before a step that changes several things or cannot be undone."""
    return page(request, "question.html", question=question)


def to(path: str, headers: Mapping[str, str] | None = None) -> Response[None]:
    """Send the browser to a page after a form, so that reloading does nothing twice."""
    return Response(None, status_code=303, headers={"Location": path, "Cache-Control": "no-store", **(headers or {})})


@functools.cache
def environment() -> jinja2.Environment:
    """The one environment: everything is escaped, and a name that a page is not given is an error."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        auto_reload=False,  # a running process keeps to the pages it was started with
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"ago": ago, "moment": moment, "json": as_json, "humane": humane, "facts": facts, "short": short}
    made.filters |= {"line": wording.line, "reason": plain_reason, "said": wording.said, "code": as_code}
    made.filters |= {"tone": lambda word: TONES.get(str(word), "plain"), "count": lambda number: f"{number:,}"}
    made.filters |= {"upto": lambda number, most: f"{number:,}" if number <= most else f"{most:,}+"}
    made.globals |= {"file": file, "now": lambda: datetime.now(UTC), "area": sparkline.area, "line": sparkline.line}
    return made


@functools.cache
def file(name: str) -> str:
    """The address of one of our own files, another one for every version of it: browsers keep what they have."""
    digest = hashlib.sha256((HERE / "static" / name).read_bytes()).hexdigest()
    return f"/console/static/{name}?{digest[:12]}"


def ago(at: datetime | None) -> str:
    """Write how long ago, or in how long: `12 s ago`, `in 5 min`."""
    if at is None:
        return "–"
    seconds = (datetime.now(UTC) - at).total_seconds()
    if abs(seconds) < 1:
        return "now"
    told = humane(float(round(abs(seconds))) * 1000).replace(".00 s", " s")
    return f"{told} ago" if seconds > 0 else f"in {told}"


def moment(at: datetime | None) -> str:
    """Write a time for a person."""
    return "–" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def as_json(value: Any) -> str:
    """Write a value as indented JSON."""
    return json.dumps(msgspec.to_builtins(value), indent=2, ensure_ascii=False, default=str)


def facts(detail: Any) -> list[tuple[str, str]]:
    """The fields of an event that say something, as text."""
    return [(name.replace("_", " "), plain(value)) for name, value in flat(detail or {}).items()]


def short(id: Any) -> str:
    """The last digits of an id, which tell it from its neighbours."""
    text = str(id)
    return f"…{text[-8:]}" if len(text) > 12 else text


def day(text: str) -> datetime | None:
    """Read a day of a filter as its first moment in UTC; None for anything else."""
    try:
        return datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC) if text else None
    except ValueError:
        return None


def uuid_or_none(text: str | None) -> UUID | None:
    """Read where a page of a list begins; None for anything that is no id."""
    try:
        return UUID(text) if text else None
    except ValueError:
        return None
