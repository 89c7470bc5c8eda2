"""The routes of templates: what there is, and what one looks like filled in."""

from litestar import Router, get, post
from litestar.params import FromPath, JSONBody

from service.emails import examples as show
from service.emails import render
from service.emails.draft import template_faults
from service.emails.faults import Refused
from service.emails.rules import pointed
from service.emails.schemas import Content, PreviewRequest, TemplateList, TemplateOverview, TemplateRef
from service.errors import Invalid, NotFound
from service.web import examples, require


@get("/templates", guards=[require("emails:read")], summary="List the templates", opt=examples(answer=show.TEMPLATES))
async def listing() -> TemplateList:
    """Describe every template: its variables, which of them are required, and an example."""
    return TemplateList(items=list(map(_told, render.templates())))


@post(
    "/templates/{key:str}/preview",
    guards=[require("emails:read")],
    status_code=200,
    summary="Render a template without sending",
    opt=examples(body=show.PREVIEW, answer=show.CONTENT),
)
async def preview(key: FromPath[str], data: JSONBody[PreviewRequest]) -> Content:
    """Fill a template in and return the mail; what is missing answers 422 and names every variable."""
    wanted = TemplateRef(key=key, variables=data.variables, locale=data.locale)
    if faults := list(template_faults(wanted)):
        if any(fault.pointer == "/key" for fault in faults):
            raise NotFound("There is no template of this key; see /v1/templates.", code="unknown-template")
        raise Invalid(faults)
    try:
        filled = render.render(key, data.variables, data.locale)
    except Refused as error:
        raise Invalid(list(pointed("", error.faults))) from error
    return Content(subject=filled.subject, html=filled.html, text=filled.text)


def _told(info: render.TemplateInfo) -> TemplateOverview:
    return TemplateOverview(
        key=info.key,
        subject=info.subject,
        required=[name for name, variable in info.variables.items() if variable.required],
        variables=info.variables,
        example=info.example,
    )


templates_router = Router("/v1", route_handlers=[listing, preview], tags=["Templates"])
