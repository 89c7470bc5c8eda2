"""`/v1/jobs`: ask for work, look at it, follow it, cancel it, try it again."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Response, Router, get, post
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.response import Stream
from sqlalchemy.ext.asyncio import AsyncSession

from callboard_workers.ledger.operations import Canceling
from service.core.errors import Conflict
from service.jobs import examples as show
from service.jobs import organizations, serializers
from service.jobs.models import Status
from service.jobs.params import unknown_job, uuid_of
from service.jobs.prepare import accept, order
from service.jobs.retry import retry as retry_in
from service.jobs.schemas import JobOut, JobPage, JobRequest
from service.jobs.stream import STREAM_HEADERS, Streams, follow
from service.jobs.timeline import story
from service.web import (
    Answer,
    Cursor,
    Limit,
    Pager,
    Request,
    examples,
    once,
    preferred_wait,
    require,
    wait_for,
)
from service.web.auth import plain_header

__all__ = ["routers", "story"]

Status_ = Annotated[
    Literal["pending", "processing", "completed", "failed", "canceled", "expired"] | None,
    QueryParameter(name="status", required=False, description="One status."),
]
Exact = Annotated[str | None, QueryParameter(required=False, description="Exactly this.")]


@post(
    "/jobs",
    guards=[require("jobs:write")],
    status_code=202,
    summary="Ask for a job",
    opt=examples(body=show.REQUEST, answer=show.JOB),
)
async def ask(request: Request, data: JSONBody[JobRequest]) -> Response[JobOut]:
    """Accept a job. 202 means that it is stored, its quota is reserved, and it will be done or say why it was not.

    403 `plan-required` or `trust-too-low` and 429 `quota-exceeded` (with the time of the reset) come before any work.
    With `Prefer: wait=20` the answer is held until the job has ended (200), or the wait is over (202).
    """
    wanted = order(data)

    async def work(session: AsyncSession) -> Answer:
        told = await accept(request, session, wanted)
        return Answer(202, told, {"Location": f"/v1/jobs/{told.id}"})

    return await _waited(request, await once(request, work))


@get("/jobs", guards=[require("jobs:read")], summary="List jobs, newest first", opt=examples(answer=show.PAGE))
async def listing(
    request: Request,
    *,
    limit: Limit = None,
    cursor: Cursor = None,
    status: Status_ = None,
    type: Annotated[str | None, QueryParameter(name="type", required=False, description="One type.")] = None,
    organization_id: Exact = None,
) -> JobPage:
    """List this tenant's jobs."""
    filters = {"status": status, "type": type, "organization_id": organization_id}
    pager = Pager(request, limit, cursor, filters=filters)
    before = UUID(pager.after[0]) if pager.after else None
    async with request.app.state.engine.connect() as connection:
        found = await serializers.page(connection, request.user.tenant_id, limit=pager.fetch, before=before, **filters)
    page = pager.cut(found, key=lambda job: [job.task_id])
    return JobPage(items=page.items, next_cursor=page.next_cursor)


@get("/jobs/{job_id:str}", guards=[require("jobs:read")], summary="Look at a job", opt=examples(answer=show.COMPLETED))
async def look(request: Request, job_id: FromPath[str]) -> Response[JobOut | None]:
    """Return a job as of now, with its ETag; 304 for one that If-None-Match knows already.

    With `Prefer: wait=20` the answer is held until the job has ended or, with If-None-Match, until it has changed.
    """
    known = _tags(plain_header(request, b"if-none-match"))

    def over(job: JobOut) -> bool:
        return job.status.terminal or (bool(known) and not _matches(known, job))

    job, _ = await wait_for(_look(request, job_id), over, preferred_wait(request))
    headers = {"ETag": serializers.etag(job), "Cache-Control": "private, no-cache"}
    if _matches(known, job):
        return Response(None, status_code=304, headers=headers)
    return Response(job, headers=headers)


@get(
    "/jobs/{job_id:str}/stream",
    guards=[require("jobs:read")],
    summary="Follow a job",
    media_type="text/event-stream",
)
async def stream(request: Request, job_id: FromPath[str]) -> Stream:
    """Send the job as a server-sent event now and at each change, until it has ended; then the stream ends.

    An event's name is the status, its data the job. A caller that comes back with `Last-Event-ID` is not told twice.
    """
    look_again = _look(request, job_id)
    await look_again()
    runtime = request.app.state.runtime
    streams = Streams.of(runtime)
    streams.check(request.user.tenant_id)
    seen = plain_header(request, b"last-event-id")

    async def events() -> AsyncIterator[bytes]:
        with request.app.state.keyring.watch(request.user.key_id) as watched:
            found = follow(runtime, streams, request.user.tenant_id, look_again, seen, over=lambda: bool(watched.over))
            async with aclosing(found):
                async for event in found:
                    yield event

    return Stream(events(), media_type="text/event-stream", headers=STREAM_HEADERS)


@post(
    "/jobs/{job_id:str}/cancel",
    guards=[require("jobs:write")],
    status_code=200,
    summary="Cancel a job",
    opt=examples(answer=show.CANCELED),
)
async def cancel(request: Request, job_id: FromPath[str]) -> Response[JobOut]:
    """Cancel a job: at once while it is pending (200), within seconds while it is processing (202).

    Its quota is given back. Canceling again is harmless; a job that has ended otherwise answers 409.
    """
    job = await _look(request, job_id)()
    done = Canceling.CANCELED if job.status is Status.CANCELED else Canceling.REFUSED
    if not job.status.terminal:
        done = await request.app.state.runtime.ledger.cancel(uuid_of(job_id), request.user.tenant_id)
        job = await _look(request, job_id)()
    if done in {Canceling.REFUSED, Canceling.UNKNOWN}:
        raise Conflict(f"The job is {job.status}; only one that has not ended can be canceled.", code="not-cancelable")
    return Response(job, status_code=200 if done is Canceling.CANCELED else 202)


@post(
    "/jobs/{job_id:str}/retry",
    guards=[require("jobs:write")],
    status_code=202,
    summary="Try a failed job again",
    opt=examples(answer=show.JOB),
)
async def retry(request: Request, job_id: FromPath[str]) -> Response[JobOut]:
    """Queue a failed job again under the same id; its quota is reserved again. Any other state answers 409."""
    id = uuid_of(job_id)

    async def work(session: AsyncSession) -> Answer:
        told = await retry_in(request, session, id)
        return Answer(202, told, {"Location": f"/v1/jobs/{told.id}"})

    return await once(request, work)


def _look(request: Request, job_id: str) -> Callable[[], Awaitable[JobOut]]:
    id = uuid_of(job_id)

    async def look_again() -> JobOut:
        async with request.app.state.engine.connect() as connection:
            found = await serializers.one(connection, request.user.tenant_id, id)
        if found is None:
            raise unknown_job()
        return found

    return look_again


async def _waited(request: Request, answer: Response[Any]) -> Response[Any]:
    """Hold a 202 as long as the caller prefers, while its job is under way."""
    seconds, location = preferred_wait(request), answer.headers.get("Location", "")
    if not seconds or answer.status_code != 202:
        return answer
    job, done = await wait_for(_look(request, location.rpartition("/")[2]), _is_over, seconds)
    headers = {name: value for name, value in answer.headers.items() if name in {"Location", "Idempotency-Replayed"}}
    return Response(msgspec.to_builtins(job), status_code=200 if done else 202, headers=headers)


def _is_over(job: JobOut) -> bool:
    return job.status.terminal


def _tags(header: str) -> set[str]:
    """Read If-None-Match for the weak comparison of RFC 9110, 8.8.3.2: without W/, and `*` as it is."""
    return {tag.strip().removeprefix("W/") for tag in header.split(",") if tag.strip()}


def _matches(known: set[str], job: JobOut) -> bool:
    return "*" in known or serializers.etag(job).removeprefix("W/") in known


routers = [
    Router("/v1", route_handlers=[ask, listing, look, stream, cancel, retry], tags=["Jobs"]),
    Router(
        "/v1",
        route_handlers=[organizations.put_organization, organizations.look, organizations.quotas],
        tags=["Organizations"],
    ),
]
