"""The shapes of `/v1/transports`."""

from datetime import datetime
from typing import Literal

import msgspec


class TransportRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/transports`: a mail server of the tenant's own; `domains` empty takes mail of every sender."""

    name: str
    host: str
    port: int = 587
    tls: Literal["none", "starttls", "tls"] = "starttls"
    verify: bool = True
    username: str | None = None
    password: str | None = None
    domains: list[str] = []
    pool_size: int = 5


class TransportOut(msgspec.Struct, frozen=True, kw_only=True):
    """A mail server as it is told: whether it has a password, never which."""

    id: str
    name: str
    host: str
    port: int
    tls: str
    verify: bool
    username: str | None
    has_password: bool
    domains: list[str]
    pool_size: int
    created_at: datetime


class TransportList(msgspec.Struct, frozen=True, kw_only=True):
    """Every mail server of a tenant."""

    items: list[TransportOut]


class StepOut(msgspec.Struct, frozen=True, kw_only=True):
    """One step on the way: what came of it, its seconds, and how to mend it."""

    name: str
    ok: bool
    seconds: float
    detail: str
    mend: str


class ProbeOut(msgspec.Struct, frozen=True, kw_only=True):
    """The whole way to a mail server, short of a mail."""

    ok: bool
    steps: list[StepOut]
