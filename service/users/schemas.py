"""The shapes of the routes about people."""

from datetime import datetime
from typing import Any, Literal

import msgspec

from service.core.errors import Fault

Pace = Literal["immediate", "hourly", "daily", "off"]


class UserRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PUT /v1/users/{id}`: all of it, each time; what is not given goes back to its default."""

    email: str | None = None
    locale: str | None = None
    timezone: str = "UTC"
    attributes: dict[str, Any] = {}


class NamedUser(UserRequest, frozen=True, kw_only=True):
    """One of `POST /v1/users`."""

    id: str


class UserId(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row that names a user and says nothing more."""

    id: str


class Imported(msgspec.Struct, kw_only=True):
    """What became of a file: its rows, for how many users something changed, the rows that were refused, and why."""

    rows: int = 0
    changed: int = 0
    refused: int = 0
    errors: list[Fault] = []


class UsersRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/users`: up to 10,000 users, each as a PUT would set it."""

    users: list[NamedUser]


class UserOut(msgspec.Struct, frozen=True, kw_only=True):
    """A user."""

    id: str
    email: str | None
    locale: str | None
    timezone: str
    attributes: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class UserPage(msgspec.Struct, frozen=True):
    """A page of users, in order of their ids."""

    items: list[UserOut]
    next_cursor: str | None


class UsersSet(msgspec.Struct, frozen=True, kw_only=True):
    """What `POST /v1/users` did: how many users there are of those named, and how many of them are new."""

    users: int
    made: int


class IdsRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Up to 10,000 users by id."""

    users: list[str]


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """What a bulk change did: how many users were named, and for how many something changed."""

    users: int
    changed: int


class BelongingOut(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who follows a topic, or is a member of an organization, and since when."""

    user_id: str
    since: datetime


class BelongingPage(msgspec.Struct, frozen=True):
    """A page of followers or members, in the order in which the users were made."""

    items: list[BelongingOut]
    next_cursor: str | None


class PreferencesRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PUT …/preferences`: all of them. Category → channel → pace; the category `*` is for all without their own."""

    categories: dict[str, dict[Literal["inbox", "email"], Pace]]


class PreferencesOut(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody's preferences; what is not there is `immediate`."""

    categories: dict[str, dict[str, Pace]]
