"""`/v1/requests/{request_id}`: everything that the service did for one request."""

import re

from litestar import Router, get
from litestar.params import FromPath

from service.core.errors import NotFound
from service.tasks.examples import STORY
from service.timeline.timeline import RequestStory, tell
from service.web import Request, examples, require

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@get(
    "/v1/requests/{request_id:str}",
    guards=[require("tasks:read")],
    summary="The whole story of a request",
    tags=["Tasks"],
    opt=examples(answer=STORY),
)
async def read_request(request: Request, request_id: FromPath[str]) -> RequestStory:
    """Tell everything that was done for the request with this X-Request-ID, in order, with durations."""
    found = None
    if REQUEST_ID.fullmatch(request_id):
        async with request.app.state.engine.connect() as connection:
            found = await tell(connection, request.user.tenant_id, request_id, request.app.state.stories)
    if found is None:
        raise NotFound("Nothing was stored for a request with this id.", code="unknown-request")
    return found


routers = [Router("/", route_handlers=[read_request])]
