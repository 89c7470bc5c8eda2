"""Jobs: by status and type; one with its progress, result or error, to be canceled or tried again."""

from typing import Any

from litestar import Response, get, post
from litestar.params import FromPath

from service.console.messages import CANCELED, Question, confirmed
from service.console.pages import ask, page, to, uuid_or_none
from service.console.visiting import form, question
from service.db.engine import transaction
from service.jobs import serializers
from service.jobs.models import Status
from service.jobs.params import unknown_job, uuid_of
from service.jobs.retry import retry as retry_in
from service.web import Request

LIMIT = 50
STATUSES = [status.value for status in Status]


@get("/jobs")
async def listing(request: Request) -> Response[Any]:
    """List jobs, newest first; `q` is the id of a job or of an organization."""
    asked = question(request)
    q, status = asked.get("q", ""), asked.get("status", "")
    if q.startswith("jb_"):
        return to(f"/console/jobs/{uuid_of(q).hex}")
    before = uuid_or_none(asked.get("before"))
    filters = {"status": status if status in STATUSES else None, "organization_id": q or None, "before": before}
    async with request.app.state.engine.connect() as connection:
        found = await serializers.page(connection, request.user.tenant_id, limit=LIMIT + 1, **filters)
    more = found[LIMIT - 1].task_id if len(found) > LIMIT else None
    return page(
        request, "jobs.html", jobs=found[:LIMIT], q=q, status=status, statuses=STATUSES, more=more, before=before
    )


@get("/jobs/{id:str}")
async def look(request: Request, id: FromPath[str]) -> Response[str]:
    """Show a job."""
    async with request.app.state.engine.connect() as connection:
        job = await serializers.one(connection, request.user.tenant_id, uuid_of(f"jb_{id.removeprefix('jb_')}"))
    if job is None:
        raise unknown_job()
    return page(request, "job.html", job=job, key=job.id.removeprefix("jb_"))


@post("/jobs/{id:str}/cancel", status_code=200)
async def cancel(request: Request, id: FromPath[str]) -> Response[Any]:
    """Cancel a job, once confirmed."""
    asked, wanted, place = await form(request), uuid_of(f"jb_{id}"), f"/console/jobs/{id}"
    if not confirmed(asked):
        async with request.app.state.engine.connect() as connection:
            job = await serializers.one(connection, request.user.tenant_id, wanted)
        if job is None:
            raise unknown_job()
        words = [f"{job.type} for {job.organization_id or 'no organization'}", "It ends without a result."]
        title, action = "Cancel this job?", f"{place}/cancel"
        return ask(request, Question(title=title, words=words, action=action, label="Cancel the job", back=place))
    done = await request.app.state.runtime.ledger.cancel(wanted, request.user.tenant_id)
    return to(f"/console/jobs/{id}?done={CANCELED.get(done, 'too-late')}")


@post("/jobs/{id:str}/retry", status_code=200)
async def retry(request: Request, id: FromPath[str]) -> Response[Any]:
    """Try a failed job again."""
    await form(request)
    async with transaction(request.app.state.sessions) as session:
        await retry_in(request, session, uuid_of(f"jb_{id}"))
    return to(f"/console/jobs/{id}?done=requeued&n=1")


handlers = [listing, look, cancel, retry]
