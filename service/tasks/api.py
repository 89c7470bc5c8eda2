"""`/v1/tasks`, `/v1/dead-letters` and `/v1/queues`: what became of it, and what to do about it."""

from typing import Any

import msgspec
from litestar import Router, get
from litestar.params import FromPath

from service.tasks.examples import QUEUE, TASK
from service.tasks.operations import cancel, list_dead_letters, requeue, resolve
from service.tasks.queue_stats import QueueReport, Queues
from service.tasks.repository import TaskReport, task, unknown_task, uuid_of
from service.web import Request, examples, require


class QueueList(msgspec.Struct, frozen=True):
    """Every queue and priority."""

    items: list[QueueReport]


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


routers: list[Any] = [Router("/", route_handlers=[read_task, cancel, list_dead_letters, requeue, resolve, list_queues])]
