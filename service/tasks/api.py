"""`/v1/tasks`, `/v1/requests` and `/v1/dead-letters`: what became of it, and what to do about it."""

import re
from typing import Any

from litestar import Router, get
from litestar.params import FromPath

from service.errors import NotFound
from service.tasks.examples import STORY, TASK
from service.tasks.operations import cancel, list_dead_letters, requeue
from service.tasks.reading import TaskReport, task, unknown_task, uuid_of
from service.tasks.story import RequestStory, tell
from service.web import Request, examples, require

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@get(
    "/v1/tasks/{task_id:str}",
    guards=[require("tasks:read")],
    summary="What became of a task",
    tags=["Tasks"],
    opt=examples(answer=TASK),
)
async def read_task(request: Request, task_id: FromPath[str]) -> TaskReport:
    """Read a task by its id, the same that Celery knows it by, with every attempt that failed.

    An id that is not of this tenant's is 404, never Celery's misleading PENDING.
    """
    async with request.app.state.engine.connect() as connection:
        found = await task(connection, request.user.tenant_id, uuid_of(task_id))
    if found is None:
        raise unknown_task()
    return found


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


routers: list[Any] = [Router("/", route_handlers=[read_task, read_request, cancel, list_dead_letters, requeue])]
