"""Takes a job: checks who asks for what, then record, ledger row and reservation in one transaction."""

from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import msgspec
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from callboard_workers.message import END, Message
from callboard_workers.runtime import Runtime
from service.core.errors import Fault, Forbidden, Invalid, TooManyRequests
from service.core.ids import job_id
from service.core.validation import faults
from service.jobs.models import Status, Urgency, jobs, plans
from service.jobs.quotas import Standing, reserve, standing
from service.jobs.schemas import JobOut, JobRequest
from service.jobs.serializers import poll_after
from service.jobs.types import JobType, job_types
from service.web import Request
from service.webhooks import repository

INPUT_LIMIT = 64 * 1024  # bytes of JSON


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A job that is wanted, read and checked as far as that goes without Postgres."""

    id: UUID
    type: JobType
    input: Any
    organization_id: str | None
    priority: Urgency | None
    scheduled_at: datetime | None
    webhook: str | None
    created_at: datetime


def order(asked: JobRequest, now: datetime | None = None) -> Order:
    """Read a request. Raises Invalid naming every fault."""
    now = now or datetime.now(UTC)
    wanted = job_types().get(asked.type)
    found = [*_input(asked, wanted), *_time(asked.scheduled_at, now)]
    if wanted is None:
        found.append(Fault("/type", f"There is no such type; there are {', '.join(sorted(job_types()))}."))
    elif wanted.needs_organization and asked.organization_id is None:
        found.append(Fault("/organization_id", "This type is done for an organization: name it."))
    if found or wanted is None:
        raise Invalid(found)
    id = uuid7()
    return Order(
        id=id,
        type=wanted,
        input=msgspec.convert(asked.input, wanted.input),
        organization_id=asked.organization_id,
        priority=None if asked.priority is None else Urgency(asked.priority),
        scheduled_at=None if asked.scheduled_at is None else asked.scheduled_at.astimezone(UTC),
        webhook=asked.webhook,
        created_at=datetime.fromtimestamp((id.int >> 80) / 1000, UTC),
    )


def _input(asked: JobRequest, wanted: JobType | None) -> list[Fault]:
    if len(msgspec.json.encode(asked.input)) > INPUT_LIMIT:
        return [Fault("/input", f"The input is over {INPUT_LIMIT} bytes of JSON.")]
    return [] if wanted is None else list(faults(asked.input, wanted.input, "/input"))


def _time(at: datetime | None, now: datetime) -> list[Fault]:
    if at is None:
        return []
    if at.tzinfo is None:
        return [Fault("/scheduled_at", "The time needs an offset, such as Z.")]
    within = now - timedelta(minutes=5) <= at < END
    return [] if within else [Fault("/scheduled_at", f"The time must be from now on, and before {END:%Y-%m-%d}.")]


async def accept(request: Request, session: AsyncSession, wanted: Order) -> JobOut:
    """Store a job, its message and its reservation in the caller's transaction; the doorbell rings after the commit.

    Raises Invalid for an unknown organization, Forbidden (`plan-required`, `trust-too-low`), TooManyRequests
    (`quota-exceeded`): before any work. The reservation is last: others of the organization wait for it.
    """
    tenant_id, mode = request.user.tenant_id, request.user.mode
    webhook_id = await _webhook(session, tenant_id, mode, wanted.webhook)
    stands = await _standing(session, tenant_id, wanted)
    if stands is not None:
        await check_rights(session, wanted.type, stands)
        check_quota(stands, wanted.type.cost)
    urgency = urgency_of(wanted.priority, stands)
    paying = stands is not None and wanted.type.cost > 0 and mode == "live"
    row = {
        "id": wanted.id,
        "tenant_id": tenant_id,
        "type": wanted.type.name,
        "mode": mode,
        "organization_id": wanted.organization_id,
        "priority": urgency.value,
        "cost": wanted.type.cost,
        "quota": "reserved" if paying else None,
        "period": stands.period if paying and stands is not None else None,
        "request_id": request.request_id,
        "input": msgspec.to_builtins(wanted.input),
        "scheduled_at": wanted.scheduled_at,
        "webhook_id": webhook_id,
        "created_at": wanted.created_at,
        "updated_at": wanted.created_at,
    }
    await session.execute(insert(jobs).values(row))
    await Runtime.enqueue_from_loop(session, _message(request, wanted, urgency))
    if paying and stands is not None:
        await take(session, tenant_id, cast("str", wanted.organization_id), stands, wanted.type.cost)
    return _told(request, wanted, urgency)


async def take(session: AsyncSession, tenant_id: UUID, organization_id: str, stands: Standing, cost: int) -> None:
    """Reserve, or raise TooManyRequests where others were faster."""
    if not await reserve(session, tenant_id, organization_id, stands, cost):
        raise exceeded(stands)


async def _webhook(session: AsyncSession, tenant_id: UUID, mode: str, given: str | None) -> UUID | None:
    if given is None:
        return None
    found = await repository.named(session, tenant_id, mode, given)
    if found is None:
        message = "No enabled endpoint has this id or URL: POST /v1/webhooks makes one, which gives it a secret."
        raise Invalid([Fault("/webhook", message)])
    return found


async def _standing(session: AsyncSession, tenant_id: UUID, wanted: Order) -> Standing | None:
    if wanted.organization_id is None:
        return None
    found = await standing(session, tenant_id, wanted.organization_id)
    if found is None:
        message = "There is no such organization: PUT /v1/organizations/{id} makes it."
        raise Invalid([Fault("/organization_id", message)])
    return found


async def check_rights(session: AsyncSession, wanted: JobType, stands: Standing) -> None:
    """Check plan and trust. Raises Forbidden."""
    if wanted.plan is not None:
        least = (await session.execute(select(plans.c.rank).where(plans.c.key == wanted.plan))).scalar_one_or_none()
        if least is None or stands.rank < least:
            detail = (
                f"{wanted.name} needs the plan `{wanted.plan}` or a higher one; this organization has `{stands.plan}`."
            )
            raise Forbidden(detail, code="plan-required")
    if stands.trust_score < wanted.trust:
        detail = f"{wanted.name} needs a trust score of {wanted.trust}; this organization's is {stands.trust_score}."
        raise Forbidden(detail, code="trust-too-low")


def check_quota(stands: Standing, cost: int) -> None:
    """Check the quota as it was read, before anything is written. Raises TooManyRequests."""
    if cost > stands.left:
        raise exceeded(stands)


def exceeded(stands: Standing) -> TooManyRequests:
    """Make the 429 of a quota that is used up, with the time it begins anew."""
    seconds = max(1, round((stands.resets_at - datetime.now(UTC)).total_seconds()))
    detail = (
        f"The month's quota of {stands.job_limit} jobs is used or reserved. It begins anew at "
        f"{stands.resets_at.isoformat().replace('+00:00', 'Z')}; a larger plan has more."
    )
    return TooManyRequests(detail, retry_after=seconds, code="quota-exceeded")


def urgency_of(asked: Urgency | None, stands: Standing | None) -> Urgency:
    """Cap the priority asked for by the plan's, which is also the default; without an organization it is as asked."""
    if stands is None:
        return asked or Urgency.NORMAL
    most = Urgency(stands.priority)
    return most if asked is None or asked.rank > most.rank else asked


def _message(request: Request, wanted: Order, urgency: Urgency) -> Message:
    actor = wanted.type.actor
    start = wanted.scheduled_at if wanted.scheduled_at and wanted.scheduled_at > wanted.created_at else None
    expires = actor.policy.expires
    if expires is not None and start is not None:
        expires += (start - wanted.created_at).total_seconds()
    how = actor.options(
        id=wanted.id, at=start, priority=urgency.priority, expires=expires, tenant_id=request.user.tenant_id
    )
    made = how.message(wanted.input)
    came = request.scope.get("received_at") or wanted.created_at
    note = {
        "mode": request.user.mode,
        "route": f"{request.method} {request.scope['path']}",
        "received_at": cast("datetime", came).isoformat(),
    }
    return msgspec.structs.replace(made, headers=made.headers | note)


def _told(request: Request, wanted: Order, urgency: Urgency) -> JobOut:
    """The job as it is told at once: what `views.one` would say of it right after the commit."""
    wait = 0.0 if wanted.scheduled_at is None else (wanted.scheduled_at - wanted.created_at).total_seconds()
    return JobOut(
        id=job_id(wanted.id),
        type=wanted.type.name,
        status=Status.PENDING,
        task_id=str(wanted.id),
        request_id=request.request_id,
        attempts=0,
        error=None,
        created_at=wanted.created_at,
        updated_at=wanted.created_at,
        mode=request.user.mode,
        organization_id=wanted.organization_id,
        priority=urgency,
        input=msgspec.to_builtins(wanted.input),
        progress=None,
        result=None,
        scheduled_at=wanted.scheduled_at,
        started_at=None,
        finished_at=None,
        poll_after_ms=poll_after(Status.PENDING, wait),
    )
