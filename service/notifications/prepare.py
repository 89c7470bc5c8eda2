"""Takes a notification: every rule that can be checked without Postgres, then the row that is stored of it. Pure."""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from uuid_utils.compat import uuid7

from service.core.errors import Fault, Invalid
from service.core.validation import json_faults
from service.emails.prepare import moment
from service.notifications.email import Told
from service.notifications.schemas import NotificationRequest
from service.users.identifiers import id_faults, ids_faults, word_faults

MOST_USERS = 10_000
MOST_TOPICS = 100
MOST_EXCLUDED = 1_000

_DEDUP_KEY = re.compile(r"[\x21-\x7e]{1,200}")

COLUMNS: tuple[tuple[str, str], ...] = (
    ("id", "uuid"),
    ("tenant_id", "uuid"),
    ("mode", "text"),
    ("type", "text"),
    ("category", "text"),
    ("actor", "text"),
    ("data", "jsonb"),
    ("channels", "text[]"),
    ("critical", "boolean"),
    ("users", "text[]"),
    ("topics", "text[]"),
    ("organization_id", "text"),
    ("exclude", "text[]"),
    ("dedup_key", "text"),
    ("dedup_window", "double precision"),
    ("email", "jsonb"),
    ("request_id", "text"),
    ("created_at", "timestamptz"),
    ("updated_at", "timestamptz"),
)
"""What is stored at acceptance, with the Postgres types."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A notification that keeps every rule; the fields are COLUMNS, but for `email`, which is still a struct."""

    id: UUID
    tenant_id: UUID
    mode: str
    request_id: str | None
    asked: NotificationRequest

    @property
    def created_at(self) -> datetime:
        """The millisecond inside the id."""
        return moment(self.id)

    @property
    def channels(self) -> list[str]:
        """Each channel once."""
        return list(dict.fromkeys(self.asked.channels))

    def row(self) -> tuple[Any, ...]:
        """The values of the row, in the order of COLUMNS."""
        asked, to = self.asked, self.asked.recipients
        return (
            self.id,
            self.tenant_id,
            self.mode,
            asked.type,
            asked.category,
            asked.actor,
            asked.data,
            self.channels,
            asked.critical,
            list(dict.fromkeys(to.users)),
            list(dict.fromkeys(to.topics)),
            to.organization,
            list(dict.fromkeys(asked.exclude)),
            asked.dedup_key,
            asked.dedup_window,
            None if asked.email is None else msgspec.to_builtins(asked.email),
            self.request_id,
            self.created_at,
            self.created_at,
        )

    def told(self) -> Told:
        """What its mail is made of."""
        asked = self.asked
        return Told(
            id=self.id,
            tenant_id=self.tenant_id,
            mode=self.mode,
            type=asked.type,
            category=asked.category,
            critical=asked.critical,
            data=asked.data,
            wide=bool(asked.recipients.topics) or asked.recipients.organization is not None,
            email=asked.email,
            request_id=self.request_id,
        )


def order(
    asked: NotificationRequest,
    *,
    tenant_id: UUID,
    mode: str,
    request_id: str | None = None,
) -> Order:
    """Check a request against every rule but those of its mail. Raises Invalid naming every fault."""
    made = Order(id=uuid7(), tenant_id=tenant_id, mode=mode, request_id=request_id, asked=asked)
    faults = [*_word_faults(asked), *_recipient_faults(asked), *_dedup_faults(asked), *_data_faults(asked)]
    if faults:
        raise Invalid(faults)
    return made


def _word_faults(asked: NotificationRequest) -> Iterator[Fault]:
    yield from word_faults(asked.type, "/type")
    yield from word_faults(asked.category, "/category")
    if asked.actor is not None:
        yield from id_faults(asked.actor, "/actor")
    if not asked.channels:
        yield Fault("/channels", "name at least one of inbox, email.")


def _recipient_faults(asked: NotificationRequest) -> Iterator[Fault]:
    to = asked.recipients
    if not to.users and not to.topics and to.organization is None:
        yield Fault("/recipients", "name at least one of users, topics, organization.")
    yield from ids_faults(to.users, "/recipients/users", MOST_USERS)
    yield from ids_faults(to.topics, "/recipients/topics", MOST_TOPICS)
    yield from ids_faults(asked.exclude, "/exclude", MOST_EXCLUDED)
    if to.organization is not None:
        yield from id_faults(to.organization, "/recipients/organization")


def _dedup_faults(asked: NotificationRequest) -> Iterator[Fault]:
    if asked.dedup_key is None:
        if asked.dedup_window is not None:
            yield Fault("/dedup_window", "a window needs a dedup_key.")
    elif not _DEDUP_KEY.fullmatch(asked.dedup_key):
        yield Fault("/dedup_key", "must be 1 to 200 printable ASCII characters without spaces.")


def _data_faults(asked: NotificationRequest) -> Iterator[Fault]:
    yield from json_faults(asked.data, "/data")
    if asked.email is not None and "email" not in asked.channels:
        yield Fault("/email", "is given, but `email` is not among the channels.")
