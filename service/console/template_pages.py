"""Email templates: built in and written by the tenant; one with its versions, variables and a preview."""

from typing import Any

from litestar import Response, get
from litestar.params import FromPath

from service.console.pages import FRAME, page
from service.console.visiting import question
from service.core.errors import NotFound
from service.emails.resources import Office
from service.mail.faults import Refused
from service.templates import render, serializers
from service.templates.schemas import TemplateDetail
from service.templates.tenant import repository
from service.templates.tenant.cache import Version, read, read_contents
from service.templates.tenant.lookup import Pinned
from service.templates.tenant.sandbox_pool import Busy
from service.web import Request

NONE = "There is no template with this key, or no such version of it."


@get("/templates")
async def list_templates(request: Request) -> Response[str]:
    """List every template: the tenant's first, then those that are built in."""
    async with request.app.state.engine.connect() as connection:
        own = await repository.shown(connection, request.user.tenant_id)
    replaced = {row["key"] for row in own}
    rest = [serializers.overview(info) for info in render.templates() if info.key not in replaced]
    return page(request, "templates.html", templates=[*map(serializers.own_overview, own), *rest])


@get("/templates/{key:str}")
async def get_template(request: Request, key: FromPath[str]) -> Response[str]:
    """Show a template: as published, else its newest version, or the `version` asked for."""
    number = _number(question(request).get("version", ""))
    detail, version = await _detail(request, key, number)
    subject = ""
    if version is not None:
        words = detail.contents.get(version.default_locale) or next(iter(detail.contents.values()))
        subject = words.subject
    elif (info := serializers.built_in(key)) is not None:
        subject = info.subject
    return page(request, "template.html", template=detail, subject=subject)


@get("/templates/{key:str}/frame")
async def frame(request: Request, key: FromPath[str]) -> Response[str]:
    """Answer the template filled with its example, for a frame in which nothing runs and nothing is loaded."""
    detail, version = await _detail(request, key, _number(question(request).get("version", "")))
    office = Office.of(request.app.state.runtime)
    try:
        if version is None:
            filled: Any = render.render(key, detail.example, None)
        else:
            filled = await office.library.fill(Pinned(version, version.default_locale), detail.example)
    except (Refused, Busy) as error:
        return Response(f"No preview: {error}", media_type="text/plain", headers=FRAME)
    if filled.html is None:
        return Response(filled.text or "", media_type="text/plain", headers=FRAME)
    return Response(filled.html, media_type="text/html", headers=FRAME)


async def _detail(request: Request, key: str, number: int | None) -> tuple[TemplateDetail, Version | None]:
    """Read a template as the API returns it, and its version where the tenant wrote it. Raises NotFound."""
    tenant = request.user.tenant_id
    async with request.app.state.engine.connect() as connection:
        row = await repository.find(connection, tenant, key)
        if row is None:
            info = serializers.built_in(key) if number is None else None
            if info is None:
                raise NotFound(NONE)
            return serializers.detail(info), None
        version = await read(connection, tenant, key, number or row["published"] or row["newest"])
        if version is None:
            raise NotFound(NONE)
        contents = await read_contents(connection, version)
        versions = await repository.versions(connection, tenant, key)
        return serializers.own_detail(version, contents, row, versions), version


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and 0 < len(text) < 10 else None


handlers = [list_templates, get_template, frame]
