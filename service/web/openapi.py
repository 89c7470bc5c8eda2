"""OpenAPI 3.1 of every route, with the error answers each one can give, as JSON and as a page that loads nothing."""

import functools
import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast

import jinja2
import markupsafe
import msgspec
from litestar import Litestar, Request, Response, Router
from litestar.enums import MediaType
from litestar.exceptions import NotFoundException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme, Server
from litestar.routes import HTTPRoute

from service.web.auth import SCOPES
from service.web.openapi_links import link
from service.web.problem_details import Problem

VERSION = "1"
EXAMPLES = "examples"
BODIES = "bodies"
ANSWERS = "answers"
ERRORS: dict[int, tuple[str, str]] = {
    400: ("bad-request", "The request cannot be read: malformed JSON, a bad parameter, a cursor that was changed."),
    401: ("unauthenticated", "No key, or one that is unknown, expired or revoked."),
    403: ("scope-missing", "The key may not do this."),
    404: ("not-found", "No such thing, or it belongs to another tenant."),
    409: ("conflict", "The object's state forbids this, or the first request with this key is in progress."),
    413: (
        "body-too-large",
        "The body is larger than the service takes; one far larger is cut off.",
    ),
    415: ("unsupported-media-type", "The body is not plain `application/json`."),
    422: ("invalid", "The request breaks its rules; `errors` names every fault."),
    429: ("rate-limited", "Too many requests; see `Retry-After`."),
    500: ("internal-error", "A bug; quote the request_id."),
    503: (
        "database-away",
        "The database does not answer; try again after `Retry-After`, with the same Idempotency-Key.",
    ),
}
KEY_HEADER = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key and body again get the first answer again; kept for a day.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    "example": "order-1042-receipt",
}


class Document(JsonRenderPlugin):
    """Serves `/schema/openapi.json`."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """Render the schema with its error answers."""
        return self.render_json(request, complete(request.app, openapi_schema))


class ReadingPage(OpenAPIRenderPlugin):
    """Serves `/schema`: one page, rendered here, without a script and without another host."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """Render the page."""
        schema = complete(request.app, openapi_schema)
        return _page().render(schema=schema, groups=groups(schema), resolve=resolver(schema)).encode()


def config(public_url: str) -> OpenAPIConfig:
    """Make Litestar's configuration."""
    return OpenAPIConfig(
        title="Callboard",
        version=VERSION,
        description="Everything that must happen after the response: never lost, never sent twice.",
        servers=[Server(url=public_url)],
        use_handler_docstrings=True,
        security=[{"key": []}],
        components=Components(
            security_schemes={
                "key": SecurityScheme(type="http", scheme="bearer", description="`cb_live_…` or `cb_test_…`")
            }
        ),
        render_plugins=[ReadingPage(path="/", media_type=MediaType.HTML), Document(path="/openapi.json")],
        openapi_router=Router("/schema", route_handlers=[], include_in_schema=False, after_request=_plain_404),
    )


async def _plain_404(response: Response[Any]) -> Response[Any]:
    if response.status_code == 404:
        raise NotFoundException
    if str(response.media_type).startswith("text/html"):
        response.headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'"
    return response


def complete(app: Litestar, schema: dict[str, Any]) -> dict[str, Any]:
    """Add to each operation what it needs (scopes, Idempotency-Key) and every error it can answer. Done once."""
    if schema.get("x-complete"):
        return schema
    schema["x-complete"] = True
    components = schema.setdefault("components", {})
    (_,), shapes = msgspec.json.schema_components([Problem], ref_template="#/components/schemas/{name}")
    components.setdefault("schemas", {}).update(shapes)
    components["responses"] = {str(status): _error(status) for status in ERRORS}
    options = dict(_options(app))
    for path, method, operation in operations(schema):
        known = options.get((path, method), {})
        _embody(operation, known.get(BODIES, {}), components["schemas"])
        _complete_one(method, operation, known.get(SCOPES), known.get(ANSWERS, ()))
        _exemplify(operation, known.get(EXAMPLES, {}))
    link(schema)
    return schema


def examples(*, body: Any = None, answer: Any = None) -> dict[str, Any]:
    """Give a route its examples: ``@post(…, opt=examples(body={…}, answer={…}))``, as JSON values."""
    return {EXAMPLES: {"body": body, "answer": answer}}


def accepts(kinds: Mapping[str, Any]) -> dict[str, Any]:
    """Say what a route reads that decodes its body by itself: ``opt=accepts({"text/csv": str})``, a type for each."""
    return {BODIES: dict(kinds)}


def answers(*statuses: int) -> dict[str, Any]:
    """Name the errors of a route that do not follow from its method and its parts: ``opt=answers(409)``."""
    return {ANSWERS: statuses}


def _embody(operation: dict[str, Any], kinds: Mapping[str, Any], schemas: dict[str, Any]) -> None:
    if not kinds:
        return
    content = {}
    for media, kind in kinds.items():
        (schema,), shapes = msgspec.json.schema_components([kind], ref_template="#/components/schemas/{name}")
        content[media] = {"schema": schema}
        for name, shape in shapes.items():
            schemas.setdefault(name, shape)
    operation["requestBody"] = {"content": content, "required": True}


def _exemplify(operation: dict[str, Any], given: dict[str, Any]) -> None:
    for content in operation.get("requestBody", {}).get("content", {}).values():
        if given.get("body") is not None:
            content["example"] = given["body"]
    for status, answer in operation["responses"].items():
        if status < "300" and given.get("answer") is not None:
            answer.setdefault("content", {}).setdefault("application/json", {})["example"] = given["answer"]


def operations(schema: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Walk over (path, method, operation)."""
    for path, item in sorted(schema.get("paths", {}).items()):
        for method in ("get", "post", "put", "patch", "delete"):
            if method in item:
                yield path, method, item[method]


def _complete_one(method: str, operation: dict[str, Any], scopes: tuple[str, ...] | None, own: tuple[int, ...]) -> None:
    told = operation.setdefault("responses", {})
    statuses = {500, 503, *own}
    if scopes is None:
        operation["security"] = [{}]
    else:
        statuses |= {401, 403, 429}
        operation["x-scopes"] = list(scopes)
        if method == "post":
            statuses |= {400, 409, 422}
            operation.setdefault("parameters", []).append(KEY_HEADER)
        if method == "put":
            statuses |= {422}
        if method == "patch":
            statuses |= {409}
    if "requestBody" in operation:
        statuses |= {400, 413, 415, 422}
    places = {parameter.get("in") for parameter in operation.get("parameters", [])}
    statuses |= {404} if "path" in places else set()
    statuses |= {400} if "query" in places else set()
    for status in sorted(statuses):
        told[str(status)] = {"$ref": f"#/components/responses/{status}"}


def _options(app: Litestar) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    for route in app.routes:
        for handler in route.route_handlers if isinstance(route, HTTPRoute) else []:
            for method in handler.http_methods:
                yield (route.path_format or "/", method.lower()), dict(handler.opt)


def _error(status: int) -> dict[str, Any]:
    code, description = ERRORS[status]
    example: dict[str, Any] = {
        "type": f"/errors/{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": description,
        "code": code,
        "request_id": "0199f6d6c3a1712fa0d5f1f0a9c1e7b2",
    }
    if status == 422:
        example["errors"] = [{"pointer": "/to/0", "message": "This is not an address."}]
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}}
    return {"description": description, "content": content}


def groups(schema: dict[str, Any]) -> dict[str, list[tuple[str, str, dict[str, Any]]]]:
    """Group the operations by their first tag."""
    found: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, method, operation in operations(schema):
        found.setdefault((operation.get("tags") or ["Other"])[0], []).append((path, method, operation))
    return dict(sorted(found.items()))


def resolver(schema: dict[str, Any]) -> Any:
    """Make the function that follows a `$ref` of `schema`."""

    def resolve(shape: dict[str, Any]) -> dict[str, Any]:
        reference = shape.get("$ref", "")
        found: Any = schema
        for step in re.split("/", reference)[1:]:
            found = found.get(step, {})
        return cast("dict[str, Any]", found) if reference else shape

    return resolve


@functools.cache
def _page() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["json"] = lambda value: msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    environment.filters["code"] = as_code
    return environment.get_template("schema.html")


def as_code(text: str | None) -> markupsafe.Markup:
    """Write a description as HTML: escaped, what stands between backticks as code."""
    return markupsafe.Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(markupsafe.escape(text or ""))))  # noqa: S704
