"""The shapes of the jobs API: what a caller sends and what it gets back."""

from datetime import date, datetime
from typing import Annotated, Any, Literal

import msgspec

from service.core.errors import ErrorOut
from service.jobs.models import Status, Urgency


class JobRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/jobs`. `priority` is the plan's where none is given, and never above it.

    `webhook`: the id or URL of an endpoint that is told when the job has ended.
    """

    type: str
    input: dict[str, Any] = {}
    organization_id: str | None = None
    priority: Literal["low", "normal", "high"] | None = None
    scheduled_at: datetime | None = None
    webhook: Annotated[str, msgspec.Meta(max_length=2_000)] | None = None


class ProgressOut(msgspec.Struct, frozen=True, kw_only=True):
    """How far a job is: `done` of `total`, and what it is at."""

    done: int
    total: int | None = None
    note: str = ""


class JobOut(msgspec.Struct, frozen=True, kw_only=True):
    """A job as of now. `poll_after_ms`: when a look is worth it; null once nothing will happen any more.

    `result`: of a completed job, what its type declares; one whose work gave anything else is failed, and its
    `error.code` is `BadResult`.
    """

    id: str
    type: str
    status: Status
    task_id: str
    request_id: str | None
    attempts: int
    error: ErrorOut | None
    created_at: datetime
    updated_at: datetime
    mode: str
    organization_id: str | None
    priority: Urgency
    input: Any
    progress: ProgressOut | None
    result: Any
    scheduled_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    poll_after_ms: int | None


class JobPage(msgspec.Struct, frozen=True):
    """A page of jobs, newest first."""

    items: list[JobOut]
    next_cursor: str | None


class OrganizationRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PUT /v1/organizations/{id}`: all of it, each time. `job_limit` is jobs a month, null for the plan's."""

    plan: str
    trust_score: Annotated[int, msgspec.Meta(ge=0, le=100)] = 50
    job_limit: Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)] | None = None


class OrganizationOut(msgspec.Struct, frozen=True, kw_only=True):
    """An organization: what it may do."""

    id: str
    plan: str
    trust_score: int
    job_limit: int | None
    created_at: datetime
    updated_at: datetime


class QuotaOut(msgspec.Struct, frozen=True, kw_only=True):
    """This month's quota in jobs: `used` by those that completed, `reserved` by those under way."""

    organization_id: str
    plan: str
    period: date
    limit: int
    used: int
    reserved: int
    remaining: int
    resets_at: datetime
