"""What a tenant may do to its tasks: cancel one, look at the dead letters, queue them again, settle doubts."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, assert_never
from uuid import UUID

import msgspec
import sqlalchemy as sa
from litestar import Response, get, post
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from redis.exceptions import RedisError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from callboard_workers.ledger import Ledger
from callboard_workers.ledger.operations import Canceling
from callboard_workers.ledger.schema import State, messages
from service.core.errors import Conflict, Fault, Invalid
from service.tasks import buried
from service.tasks.examples import TASK
from service.tasks.repository import TaskReport, dead_letters, unknown_task, uuid_of
from service.web import Answer, Body, Cursor, Limit, Page, Pager, Request, examples, once, require

MAX_IDS = 1000
DeadState = Literal["dead", "uncertain", "held"]
Ids = Annotated[list[str], msgspec.Meta(min_length=1, max_length=MAX_IDS)]


class Requeue(Body):
    """Which dead letters to queue again: `ids`, or all of an `actor`, or those with an `error` (its type)."""

    ids: Ids | None = None
    actor: str | None = None
    error: str | None = None

    def __post_init__(self) -> None:
        if self.ids is None and self.actor is None and self.error is None:
            raise ValueError("one of `ids`, `actor` and `error` is required")


class Resolve(Body):
    """How to settle doubts: these `ids` are `done` after all, or `dead`, or `held`: not to be done again by itself."""

    ids: Ids
    state: Literal["done", "dead", "held"]
    reason: Annotated[str, msgspec.Meta(max_length=500)] = ""


@post(
    "/v1/tasks/{task_id:str}/cancel",
    guards=[require("tasks:write")],
    summary="Cancel a task",
    tags=["Tasks"],
    status_code=200,
    opt=examples(answer={"task_id": TASK["task_id"], "canceled": "now"}),
)
async def cancel(request: Request, task_id: FromPath[str]) -> Response[Any]:
    """Cancel a task that has not passed its point of no return.

    `canceled` is `now` for one that waited, and `requested` for one that runs: it is stopped within ten seconds. 409
    where it is too late.
    """
    wanted = uuid_of(task_id)
    ledger: Ledger = request.app.state.runtime.ledger

    async def work(_: AsyncSession) -> Answer:
        told = await ledger.cancel(wanted, request.user.tenant_id)
        match told:
            case Canceling.CANCELED:
                return Answer(200, {"task_id": task_id, "canceled": "now"})
            case Canceling.REQUESTED:
                return Answer(200, {"task_id": task_id, "canceled": "requested"})
            case Canceling.REFUSED:
                raise Conflict("The task has ended, or passed its point of no return.", code="too-late")
            case Canceling.UNKNOWN:
                raise unknown_task()
            case _:
                assert_never(told)

    return await once(request, work)


@get(
    "/v1/dead-letters",
    guards=[require("tasks:read")],
    summary="Tasks that wait for a person",
    tags=["Tasks"],
    opt=examples(answer={"items": [TASK], "next_cursor": None}),
)
async def list_dead_letters(
    request: Request,
    limit: Limit = None,
    cursor: Cursor = None,
    actor: FromQuery[str | None] = None,
    kind: Annotated[DeadState | None, QueryParameter(name="state", required=False)] = None,
) -> Page[TaskReport]:
    """List tasks that are out of attempts (`dead`) or in doubt (`uncertain`, `held`), the newest first.

    For a key with the scope `operator` also the failed tasks of Celery clients that have no tenant.
    """
    pager = Pager(request, limit, cursor, filters={"actor": actor, "state": kind})
    after = UUID(pager.after[0]) if pager.after else None
    async with request.app.state.engine.connect() as connection:
        found = await dead_letters(
            connection, request.user.tenant_id, actor=actor, state=kind, after=after, limit=pager.fetch
        )
    if request.user.operates and kind in (None, "dead"):
        found = await _with_buried(request, found, actor, after, pager.fetch)
    return pager.cut(found, lambda report: [str(report.id)])


async def _with_buried(
    request: Request, found: list[TaskReport], actor: str | None, after: UUID | None, limit: int
) -> list[TaskReport]:
    """Add the failed tasks of Celery clients that only Redis keeps; without Redis there are none to be seen."""
    state = request.app.state
    try:
        kept = [each.report for each in await buried.read(state.redis, state.settings.redis_key_prefix)]
    except (RedisError, OSError):
        return found
    kept = [each for each in kept if actor in (None, each.name) and (after is None or each.id < after)]
    return sorted([*found, *kept], key=lambda report: report.id, reverse=True)[:limit]


@post(
    "/v1/dead-letters/requeue",
    guards=[require("tasks:write")],
    summary="Queue dead letters again",
    tags=["Tasks"],
    status_code=200,
    opt=examples(body={"ids": [TASK["task_id"]]}, answer={"requeued": [TASK["task_id"]], "left": []}),
)
async def requeue(request: Request, data: JSONBody[Requeue]) -> Response[Any]:
    """Queue up to 1,000 dead letters again; nothing is queued twice, however often this is called.

    `left` names the ids that are none of this tenant's dead letters, or not any more. One that is `uncertain` may be
    done twice: nobody knows whether it was done.
    """
    given = None if data.ids is None else _uuids(data.ids)
    ledger: Ledger = request.app.state.runtime.ledger

    async def work(session: AsyncSession) -> Answer:
        tenant = request.user.tenant_id
        wanted = await _chosen(await session.connection(), tenant, given, data)
        moved = await ledger.requeue(wanted, by=request.user.key, tenant_id=tenant, reason="api")
        left = [str(id_) for id_ in wanted if id_ not in moved]
        return Answer(200, {"requeued": sorted(map(str, moved)), "left": left})

    return await once(request, work)


@post(
    "/v1/dead-letters/resolve",
    guards=[require("tasks:write")],
    summary="Settle doubts",
    tags=["Tasks"],
    status_code=200,
    opt=examples(
        body={"ids": [TASK["task_id"]], "state": "done", "reason": "Ada says that she has it"},
        answer={"resolved": [TASK["task_id"]], "left": []},
    ),
)
async def resolve(request: Request, data: JSONBody[Resolve]) -> Response[Any]:
    """Say what became of up to 1,000 tasks that are in doubt; each task's history notes who said so, and why.

    `done` settles what is `uncertain`, `held` or `dead`; `dead` what is `uncertain` or `held`; `held` what is
    `uncertain`. `left` names the ids that are none of those, or none of this tenant's.
    """
    wanted = _uuids(data.ids)
    ledger: Ledger = request.app.state.runtime.ledger

    async def work(session: AsyncSession) -> Answer:
        user, to = request.user, State(data.state)
        moved = await ledger.resolve(
            session, wanted, to, by=user.key, tenant_id=user.tenant_id, reason=data.reason or "api"
        )
        left = [str(id_) for id_ in wanted if id_ not in moved]
        return Answer(200, {"resolved": sorted(map(str, moved)), "left": left})

    return await once(request, work)


def _uuids(texts: Sequence[str]) -> list[UUID]:
    found: list[UUID] = []
    faults: list[Fault] = []
    for place, given in enumerate(texts):
        try:
            found.append(UUID(given))
        except ValueError:
            faults.append(Fault(f"/ids/{place}", "This is not a task's id."))
    if faults:
        raise Invalid(faults)
    return list(dict.fromkeys(found))


async def _chosen(connection: AsyncConnection, tenant: UUID, given: list[UUID] | None, data: Requeue) -> list[UUID]:
    if given is not None and data.actor is None and data.error is None:
        return given
    where = [messages.c.tenant_id == tenant, messages.c.state.in_(["dead", "held", "uncertain"])]
    where += [messages.c.id.in_(given)] if given is not None else []
    where += [messages.c.actor == data.actor] if data.actor is not None else []
    where += [messages.c.error["type"].astext == data.error] if data.error is not None else []
    statement = sa.select(messages.c.id).where(*where).order_by(messages.c.id).limit(MAX_IDS)
    return list((await connection.execute(statement)).scalars())
