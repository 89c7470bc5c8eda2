"""Actors of the activities slice: make three activities, and the name by which Celery clients ask for it."""

from typing import Any

from callboard_workers.actors.actor import actor
from callboard_workers.context import current
from callboard_workers.errors import Dead, NoRuntime
from callboard_workers.policy import Backoff
from callboard_workers.runtime import Runtime
from service.activities import offline, prompt
from service.activities.resources import Workshop
from service.activities.schemas import COUNT, Activities, ActivitiesInput
from service.core.errors import NotFound
from service.jobs import serializers
from service.jobs.actors import STOCK
from service.jobs.params import uuid_of
from service.jobs.types import job


@job(
    "activities.generate",
    input=ActivitiesInput,
    result=Activities,
    plan="team",
    trust=20,
    max_retries=5,
    backoff=Backoff(min=2, max=300),
    time_limit=600,
)
async def generate(input: ActivitiesInput) -> Activities:
    """Make three activities for a team: by the model of LLM_BASE_URL, or offline where there is none.

    A test key's job asks no model. `time_limit` covers two answers of the longest LLM_TIMEOUT.
    """
    context, chat = current(), Workshop.of_loop().chat
    if chat is None or context.headers.get("mode") == "test":
        made = offline.pick(input)
        await context.progress(COUNT, COUNT, "made offline")
        return Activities(provider="offline", model=None, activities=made)

    async def note(what: str) -> None:
        await context.progress(0, COUNT, what)

    made = await prompt.converse(chat, input, note)
    await context.progress(COUNT, COUNT, f"made by {chat.model}")
    return Activities(provider="llm", model=chat.model, activities=made)


@actor(name="generate_custom_activities_task", queue=STOCK, result=3600)
async def generate_custom_activities(
    job_id: str, team_id: str | None = None, organization_id: str | None = None
) -> dict[str, Any]:
    """Ring for a stored job, by its id in either spelling (`jb_…` or the task's): a free worker takes it up at once.

    Its team and organization are stored with it: the arguments `team_id` and `organization_id` change nothing.
    Harmless at any time: a job that runs, has ended or is not due is left alone. Answers its id and status.
    """
    runtime = Runtime.of_loop()
    if runtime.engine is None:
        raise NoRuntime("jobs are in Postgres: this Runtime was made without an engine")
    async with runtime.engine.connect() as connection:
        try:
            found = await serializers.doorbell(connection, uuid_of(job_id))
        except NotFound:
            found = None
    if found is None:
        reason = f"there is no job {job_id[:80]}: POST /api/activities/generate-custom creates one and starts it"
        raise Dead(reason, {"reason": "no_such_job"})
    status, message = found
    if message is not None:
        runtime.publisher.ring([message])
    return {"job_id": job_id, "status": status}
