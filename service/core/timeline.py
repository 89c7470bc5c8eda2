"""The words in which a slice tells its part of a request's story."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection


class Event(msgspec.Struct, frozen=True):
    """One thing that happened for a request: `what` is `noun_verb`, `id` names the thing, `detail` its fields."""

    at: datetime
    what: str
    id: str = ""
    detail: dict[str, Any] = {}


Story = Callable[[AsyncConnection, UUID, str], Awaitable[list[Event]]]
"""From (connection, tenant id, request id) to the events of one slice."""
