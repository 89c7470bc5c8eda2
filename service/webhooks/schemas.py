"""The shapes of the webhooks API: what a caller sends and what it gets back."""

from datetime import datetime
from typing import Annotated, Any

import msgspec

from service.core.errors import ErrorOut
from service.webhooks.models import Status
from service.webhooks.types import EVERYTHING

Types = Annotated[list[str], msgspec.Meta(max_length=50)]


class EndpointRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/webhooks`. `events` are the types to be told of; `["*"]` all of them. `secret` to bring one's own."""

    url: str
    events: Types = msgspec.field(default_factory=lambda: [EVERYTHING])
    description: str = ""
    enabled: bool = True
    secret: str | None = None


class EndpointPatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PATCH /v1/webhooks/{id}`: what is left out stays. Disabling cancels what waits for the endpoint."""

    url: str | None = None
    events: Types | None = None
    description: str | None = None
    enabled: bool | None = None


class RotateRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST …/rotate`. `overlap`: seconds for which the secret before signs as well. `secret` to bring one's own."""

    overlap: Annotated[int, msgspec.Meta(ge=0, le=7 * 86_400)] = 86_400
    secret: str | None = None


class RedeliverRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST …/redeliver`: what happened from `since` on (to `until`) and was not delivered; `all`: also what was."""

    since: datetime
    until: datetime | None = None
    all: bool = False


class EndpointOut(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint. `failing_since`: nothing but failures since; null while it fares well."""

    id: str
    url: str
    mode: str
    events: list[str]
    description: str
    enabled: bool
    disabled_reason: str | None
    failing_since: datetime | None
    previous_secret_until: datetime | None
    created_at: datetime
    updated_at: datetime


class EndpointWithSecret(EndpointOut, frozen=True, kw_only=True):
    """An endpoint as it is told once: with its secret. null when the answer is a replay."""

    secret: str | None


class EndpointPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of endpoints, newest first."""

    items: list[EndpointOut]
    next_cursor: str | None


class DeliveryOut(msgspec.Struct, frozen=True, kw_only=True):
    """The delivery of one event to one endpoint. `last_status`: what the endpoint answered last, null for nothing."""

    id: str
    endpoint_id: str
    event_id: str
    type: str
    status: Status
    task_id: str
    request_id: str | None
    attempts: int
    last_status: int | None
    error: ErrorOut | None
    created_at: datetime
    updated_at: datetime
    next_attempt_at: datetime | None


class DeliveryPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of deliveries, newest first."""

    items: list[DeliveryOut]
    next_cursor: str | None


class AttemptOut(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt: the answer's `status`, how long it took, and the beginning of its body; or what went wrong."""

    at: datetime
    outcome: str
    status: int | None
    ms: float | None
    body: str | None
    error: str | None


class DeliveryDetail(DeliveryOut, frozen=True, kw_only=True):
    """A delivery with what is sent and every attempt, the first one first."""

    payload: Any
    history: list[AttemptOut]


class Redelivered(msgspec.Struct, frozen=True, kw_only=True):
    """How many deliveries were put back or made anew; `more`: ask again for the rest."""

    queued: int
    more: bool
