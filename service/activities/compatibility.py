"""The routes by which team-activity clients knew the service before: same tables, same worker, their own shapes."""

from typing import Any

import msgspec
from litestar import Response, Router, get, post
from litestar.params import FromPath, JSONBody
from sqlalchemy.ext.asyncio import AsyncSession

from service.activities.schemas import CustomActivities, CustomJob, PolledJob
from service.core.errors import Fault, Invalid
from service.jobs import examples as show
from service.jobs import serializers
from service.jobs.models import Status
from service.jobs.params import unknown_job, uuid_of
from service.jobs.prepare import accept, order
from service.jobs.schemas import JobOut, JobRequest
from service.web import Answer, Request, examples, once, require


@post(
    "/activities/generate-custom",
    guards=[require("jobs:write")],
    status_code=202,
    summary="Generate three activities",
    opt=examples(body=show.CUSTOM_REQUEST, answer=show.CUSTOM_JOB),
)
async def generate_custom(request: Request, data: JSONBody[CustomActivities]) -> Response[CustomJob]:
    """Accept a job of type `activities.generate`; poll it at `/api/jobs/{job_id}`."""
    plain: dict[str, Any] = msgspec.to_builtins(data)
    organization, requirements = plain.pop("organization_id"), plain.pop("requirements")
    if requirements and plain["notes"]:
        raise Invalid([Fault("/requirements", "`notes` says the same: give one of them.")])
    plain["notes"] = requirements or plain["notes"]
    wanted = order(JobRequest(type="activities.generate", input=plain, organization_id=organization))

    async def work(session: AsyncSession) -> Answer:
        told = await accept(request, session, wanted)
        body = CustomJob(success=True, job_id=told.id, status=told.status)
        return Answer(202, body, {"Location": f"/api/jobs/{told.id}"})

    return await once(request, work)


@get(
    "/jobs/{job_id:str}",
    guards=[require("jobs:read")],
    summary="Poll a job",
    opt=examples(answer=show.POLLED),
)
async def poll(request: Request, job_id: FromPath[str]) -> PolledJob:
    """Return a job's status and, once it is completed, its activities. `success` is false once it cannot complete."""
    async with request.app.state.engine.connect() as connection:
        found = await serializers.one(connection, request.user.tenant_id, uuid_of(job_id))
    if found is None:
        raise unknown_job()
    return _told(found)


def _told(job: JobOut) -> PolledJob:
    activities = job.result.get("activities", []) if isinstance(job.result, dict) else []
    return PolledJob(
        success=not job.status.terminal or job.status is Status.COMPLETED,
        job_id=job.id,
        status=job.status,
        activities=activities,
        error=None if job.error is None else job.error.detail,
        created_at=job.created_at,
        updated_at=job.updated_at,
    )


router = Router("/api", route_handlers=[generate_custom, poll], tags=["Compatibility"])
