"""`/v1/tasks`, `/v1/requests`, `/v1/dead-letters` and `/v1/queues`: what became of it, and what to do about it."""

import re
from typing import Any

import msgspec
from litestar import Router, get
from litestar.params import FromPath

from service.core.errors import NotFound
from service.tasks.examples import QUEUE, STORY, TASK
from service.tasks.operations import cancel, list_dead_letters, requeue, resolve
from service.tasks.queue_stats import QueueReport, Queues
from service.tasks.repository import TaskReport, task, unknown_task, uuid_of
from service.timeline.timeline import RequestStory, tell
from service.web import Request, examples, require


class QueueList(msgspec.Struct, frozen=True):
    """Every queue and priority."""

    items: list[QueueReport]


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


@get(
    "/v1/queues",
    guards=[require("queues:read")],
    summary="What waits and what runs",
    tags=["Tasks"],
    opt=examples(answer={"items": [QUEUE]}),
)
async def list_queues(request: Request) -> QueueList:
    """Tell the depth, the age of the oldest, what is in flight and the rates of each queue and priority.

    The numbers are those of the caller's own tasks, at most a second old; a key with the scope `operator` sees
    everybody's.
    """
    state = request.app.state
    known: Queues | None = state.runtime.state.get("queues")
    if known is None:
        known = state.runtime.state["queues"] = Queues(state.engine, state.redis, state.settings.redis_key_prefix)
    return QueueList(await known.report(None if request.user.operates else request.user.tenant_id))


routers: list[Any] = [
    Router("/", route_handlers=[read_task, read_request, cancel, list_dead_letters, requeue, resolve, list_queues])
]
