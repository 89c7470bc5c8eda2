"""Team activities: what is asked for, and what comes of it."""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from service.jobs.models import Status
from service.jobs.types import Input, Result

COUNT = 3
"""How many activities one job makes."""

Line = Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
Setting = Literal["onsite", "remote", "hybrid"]


class ActivitiesInput(Input, frozen=True, kw_only=True):
    """The team and what it wants. `duration_minutes` is for one activity; `notes` are the team's own words.

    `team_id` is the caller's own id of the team: it is kept with the job and given back.
    """

    team_size: Annotated[int, msgspec.Meta(ge=2, le=500)]
    topic: Annotated[str, msgspec.Meta(max_length=200)] = ""
    duration_minutes: Annotated[int, msgspec.Meta(ge=5, le=480)] = 45
    setting: Setting = "onsite"
    goals: Annotated[tuple[Line, ...], msgspec.Meta(max_length=10)] = ()
    notes: Annotated[str, msgspec.Meta(max_length=2000)] = ""
    team_id: Annotated[str, msgspec.Meta(max_length=200)] = ""


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """One activity, ready to be run. Unknown fields of a model's answer are dropped."""

    title: Annotated[str, msgspec.Meta(min_length=1, max_length=120)]
    description: Annotated[str, msgspec.Meta(min_length=1, max_length=1200)]
    duration_minutes: Annotated[int, msgspec.Meta(ge=1, le=480)]
    materials: Annotated[list[Line], msgspec.Meta(max_length=20)]
    steps: Annotated[list[Line], msgspec.Meta(min_length=1, max_length=12)]


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """What a model is asked for: exactly three activities."""

    activities: Annotated[list[Activity], msgspec.Meta(min_length=COUNT, max_length=COUNT)]


class Activities(Result, frozen=True, kw_only=True):
    """Three activities and who made them: `provider` is `llm`, or `offline` where no model was asked."""

    provider: Literal["llm", "offline"]
    model: str | None
    activities: list[Activity]


class CustomActivities(ActivitiesInput, frozen=True, kw_only=True):
    """`POST /api/activities/generate-custom`: the input of `activities.generate` and who asks, in one object.

    `requirements` are the team's own words, kept as its `notes`. Without `team_size` the activities are for 8.
    """

    organization_id: str
    team_size: Annotated[int, msgspec.Meta(ge=2, le=500)] = 8
    requirements: Annotated[str, msgspec.Meta(max_length=2000)] = ""


class CustomJob(msgspec.Struct, frozen=True, kw_only=True):
    """What `POST /api/activities/generate-custom` answers."""

    success: bool
    job_id: str
    status: Status


class PolledJob(msgspec.Struct, frozen=True, kw_only=True):
    """What `GET /api/jobs/{id}` answers: `error` is a sentence, or null."""

    success: bool
    job_id: str
    status: Status
    activities: list[Any]
    error: str | None
    created_at: datetime
    updated_at: datetime
