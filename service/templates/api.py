"""`/v1/templates`: what there is, new versions, which one is published, and what one looks like filled in."""

from typing import Annotated, Any, cast
from uuid import UUID

from litestar import Response, Router, get, post, put
from litestar.params import FromPath, JSONBody, QueryParameter
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from service.core.errors import Invalid, NotFound, Unavailable
from service.core.validation import pointed
from service.mail.faults import Refused
from service.suppressions.unsubscribe.eligibility import NEVER
from service.suppressions.unsubscribe.links import Links
from service.templates import examples as show
from service.templates import render, serializers
from service.templates.content_response import framed
from service.templates.reference import pin, template_faults
from service.templates.schemas import (
    Content,
    PreviewRequest,
    PublishRequest,
    TemplateDetail,
    TemplateIn,
    TemplateList,
    TemplateRef,
)
from service.templates.source import UNSUBSCRIBE
from service.templates.tenant import repository, validation
from service.templates.tenant.cache import read, read_contents
from service.templates.tenant.lookup import BUILT_IN, Library
from service.templates.tenant.sandbox_pool import Busy
from service.web import Answer, Request, examples, large_body, once, require, transaction
from service.web.request import integer

Number = Annotated[
    str | None, QueryParameter(name="version", required=False, description="One version instead of the published one.")
]


@get("/templates", guards=[require("emails:read")], summary="List the templates", opt=examples(answer=show.TEMPLATES))
async def listing(request: Request) -> TemplateList:
    """Describe every template: its variables, which of them are required, and an example."""
    async with request.app.state.engine.connect() as connection:
        own = await repository.shown(connection, request.user.tenant_id)
    drafts = {row["key"]: row["newest"] for row in own if row["published"] is None}
    rows = [row for row in own if row["published"] is not None or serializers.built_in(row["key"]) is None]
    replaced = {row["key"] for row in rows}
    rest = [serializers.overview(info, drafts.get(info.key)) for info in render.templates() if info.key not in replaced]
    return TemplateList(items=[*map(serializers.own_overview, rows), *rest])


@get(
    "/templates/{key:str}",
    guards=[require("emails:read")],
    summary="Look at a template",
    opt=examples(answer=show.TEMPLATE),
)
async def look(request: Request, key: FromPath[str], version: Number = None) -> TemplateDetail:
    """Return a template as emails use it: its published version, the built-in one, or else the newest draft.

    `version` is any of its versions; 0 is the built-in template.
    """
    number = None if version is None else integer("version", version, 0, 2**31 - 1)
    async with request.app.state.engine.connect() as connection:
        return await _detail(connection, request.user.tenant_id, key, number)


@put(
    "/templates/{key:str}",
    guards=[require("templates:write")],
    status_code=200,
    summary="Write a new version of a template",
    opt=examples(body=show.TEMPLATE_IN, answer=show.TEMPLATE) | large_body(),
)
async def write(request: Request, key: FromPath[str], data: JSONBody[TemplateIn]) -> TemplateDetail:
    """Write the next version, which nobody's mail is made of until it is published.

    It is compiled first: 422 names what is not available, by language, part and line. What says the same as the newest
    version changes nothing. A key of a built-in template replaces it, for this tenant.
    """
    if faults := list(validation.template_faults(key, data, serializers.built_in(key) is not None)):
        raise Invalid(faults)
    try:
        needs = await _library(request).compile(request.user.tenant_id, key, data.contents, data.variables)
    except Refused as error:
        raise Invalid(list(pointed("", error.faults))) from error
    except Busy as error:
        raise _crowded() from error
    async with transaction(request) as session:
        number = await repository.write(session, request.user.tenant_id, key, data, needs)
        return await _detail(await session.connection(), request.user.tenant_id, key, number)


@post(
    "/templates/{key:str}/publish",
    guards=[require("templates:write")],
    status_code=200,
    summary="Publish a version of a template",
    opt=examples(body={"version": 2}, answer=show.TEMPLATE),
)
async def publish(request: Request, key: FromPath[str], data: JSONBody[PublishRequest]) -> Response[TemplateDetail]:
    """Make mails that are accepted from now on of this version, in every process within two seconds.

    Mails that were accepted before stay what they are.
    """
    return await _publish(request, key, data.version, newest=data.version is None)


@post(
    "/templates/{key:str}/unpublish",
    guards=[require("templates:write")],
    status_code=200,
    summary="Go back to the built-in template",
    opt=examples(answer=show.TEMPLATE),
)
async def unpublish(request: Request, key: FromPath[str]) -> Response[TemplateDetail]:
    """Make mails of the built-in template again; where there is none, the template is not to be had any more."""
    return await _publish(request, key, None, newest=False)


@post(
    "/templates/{key:str}/preview",
    guards=[require("emails:read")],
    status_code=200,
    summary="Render a template without sending",
    opt=examples(body=show.PREVIEW, answer=show.CONTENT),
)
async def preview(request: Request, key: FromPath[str], data: JSONBody[PreviewRequest]) -> Response[Content]:
    """Fill a template in and return the mail; what is missing answers 422 and names every variable.

    With `Accept: text/html` the answer is the HTML alone, which runs no script and loads nothing but images: for a
    sandboxed frame.
    """
    wanted = TemplateRef(key=key, version=data.version, variables=data.variables, locale=data.locale)
    library = _library(request)
    pinned = await pin(library, request.user.tenant_id, wanted, "")
    if faults := list(template_faults(wanted, pinned=pinned)):
        if any(fault.pointer == "/key" for fault in faults):
            raise _unknown()
        raise Invalid(faults)
    given = {UNSUBSCRIBE: "" if key in NEVER else Links.of_runtime(request.app.state.runtime).sample, **data.variables}
    try:
        if pinned is None:
            filled = render.render(key, given, data.locale)
        else:
            filled = await library.fill(pinned, given)
    except Refused as error:
        raise Invalid(list(pointed("", error.faults))) from error
    except Busy as error:
        raise _crowded() from error
    return framed(request, Content(subject=filled.subject, html=filled.html, text=filled.text))


async def _publish(request: Request, key: str, version: int | None, *, newest: bool) -> Response[Any]:
    tenant_id = request.user.tenant_id

    async def work(session: AsyncSession) -> Answer:
        connection = await session.connection()
        found = await repository.find(connection, tenant_id, key)
        number = found["newest"] if newest and found is not None else version
        if found is None or not await repository.publish(session, tenant_id, key, number):
            raise _unknown()
        return Answer(200, await _detail(connection, tenant_id, key, number))

    answer = await once(request, work)
    _library(request).shelf.forget(tenant_id)
    return answer


async def _detail(connection: AsyncConnection, tenant_id: UUID, key: str, number: int | None) -> TemplateDetail:
    row = await repository.find(connection, tenant_id, key)
    info = serializers.built_in(key)
    if number == BUILT_IN or (number is None and (row is None or row["published"] is None) and info is not None):
        if info is None:
            raise _unknown()
        own = [] if row is None else await repository.versions(connection, tenant_id, key)
        return serializers.detail(info, row, own)
    if row is None:
        raise _unknown()
    version = await read(connection, tenant_id, key, number or row["published"] or row["newest"])
    if version is None:
        raise _unknown()
    contents = await read_contents(connection, version)
    return serializers.own_detail(version, contents, row, await repository.versions(connection, tenant_id, key))


def _library(request: Request) -> Library:
    return Library.of_runtime(cast("Any", request).app.state.runtime)


def _unknown() -> NotFound:
    return NotFound("There is no such template, or no such version of it; see /v1/templates.", code="unknown-template")


def _crowded() -> Unavailable:
    return Unavailable("Too many templates are being rendered; try again in a moment.", code="renderers-busy")


def warm() -> None:
    """Compile the built-in templates before the first request needs one."""
    render.warm()


routers = [Router("/v1", route_handlers=[listing, look, write, publish, unpublish, preview], tags=["Templates"])]
