"""Writes people: users set, made when first named, deleted; who follows, who belongs; what each prefers."""

from collections.abc import Sequence
from typing import Any, TypedDict
from uuid import UUID

import msgspec
from sqlalchemy import Table, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import Text

from service.core.errors import Fault, Invalid
from service.core.validation import json_faults, pointed
from service.mail.address_text import spell
from service.mail.addresses import AddressRefused, parse_address
from service.users.identifiers import FEW, ids_faults, locale_faults, timezone_faults
from service.users.models import followers, members
from service.users.schemas import NamedUser, UserRequest

MOST = 10_000  # users of one call

COLUMNS = "id, email, locale, timezone, attributes, created_at, updated_at"

# Ordered: two calls that name the same users take their rows in one order, so they cannot deadlock.
_SETTING = """
INSERT INTO users (tenant_id, mode, id, email, address, locale, timezone, attributes)
SELECT :tenant_id, :mode, u.id, u.email, u.address, u.locale, u.timezone, u.attributes
FROM jsonb_to_recordset(:users) AS u(id text, email text, address text, locale text, timezone text, attributes jsonb)
ORDER BY u.id
ON CONFLICT (tenant_id, mode, id) DO UPDATE
SET email = excluded.email, address = excluded.address, locale = excluded.locale, timezone = excluded.timezone,
    attributes = excluded.attributes, updated_at = clock_timestamp()
"""
_SET = text(f"{_SETTING} RETURNING {COLUMNS}, xmax = 0 AS made").bindparams(bindparam("users", type_=JSONB))
_CHANGE = text(f"""
{_SETTING}
WHERE (users.email, users.address, users.locale, users.timezone, users.attributes)
    IS DISTINCT FROM (excluded.email, excluded.address, excluded.locale, excluded.timezone, excluded.attributes)
RETURNING id
""").bindparams(bindparam("users", type_=JSONB))

_MAKE = text("""
INSERT INTO users (tenant_id, mode, id)
SELECT :tenant_id, :mode, named.id FROM (SELECT DISTINCT unnest(:ids) AS id) AS named
WHERE NOT EXISTS (SELECT FROM users u WHERE u.tenant_id = :tenant_id AND u.mode = :mode AND u.id = named.id)
ORDER BY named.id
ON CONFLICT DO NOTHING
""").bindparams(bindparam("ids", type_=ARRAY(Text)))

_ZONES = text("SELECT now() AT TIME ZONE zone FROM unnest(:zones) AS zone").bindparams(
    bindparam("zones", type_=ARRAY(Text))
)


class Who(TypedDict):
    """Whose users: a tenant's, of its live or of its test keys."""

    tenant_id: UUID
    mode: str


class Group(msgspec.Struct, frozen=True):
    """A table of who belongs to what: followers of a topic, members of an organization."""

    table: Table
    key: str

    def join(self) -> Any:
        """The statement that lets users in; it returns a row for each that was not in yet."""
        return self._over(
            f"INSERT INTO {self.table.name} (tenant_id, mode, {self.key}, user_no)"  # noqa: S608 (our own tables)
            " SELECT u.tenant_id, u.mode, :key, u.no FROM users u"
            " WHERE u.tenant_id = :tenant_id AND u.mode = :mode AND u.id = ANY(:ids) ORDER BY u.no"
            " ON CONFLICT DO NOTHING RETURNING user_no"
        )

    def leave(self) -> Any:
        """The statement that lets users out; it returns a row for each that was in."""
        return self._over(
            f"DELETE FROM {self.table.name} g USING users u"  # noqa: S608 (our own tables)
            f" WHERE g.tenant_id = :tenant_id AND g.mode = :mode AND g.{self.key} = :key AND g.user_no = u.no"
            " AND u.tenant_id = :tenant_id AND u.mode = :mode AND u.id = ANY(:ids) RETURNING g.user_no"
        )

    def page(self) -> Any:
        """The statement that reads a page: the users after a number."""
        return text(
            f"SELECT u.id, g.created_at, g.user_no FROM {self.table.name} g JOIN users u ON u.no = g.user_no"  # noqa: S608
            f" WHERE g.tenant_id = :tenant_id AND g.mode = :mode AND g.{self.key} = :key AND g.user_no > :after"
            " ORDER BY g.user_no LIMIT :limit"
        )

    def _over(self, sql: str) -> Any:
        return text(sql).bindparams(bindparam("ids", type_=ARRAY(Text)))


FOLLOWERS = Group(followers, "topic")
MEMBERS = Group(members, "organization_id")


def user_values(given: UserRequest, id: str, pointer: str = "") -> dict[str, Any]:
    """Read a user. Raises Invalid naming every fault."""
    faults = [
        *locale_faults(given.locale, f"{pointer}/locale"),
        *timezone_faults(given.timezone, f"{pointer}/timezone"),
        *json_faults(given.attributes, f"{pointer}/attributes"),
    ]
    email = address = None
    if given.email is not None:
        try:
            found = parse_address(given.email)
            email, address = spell(found), found.addr_spec
        except AddressRefused as error:
            faults += pointed(f"{pointer}/email", error.faults)
    if faults:
        raise Invalid(faults)
    return {
        "id": id,
        "email": email,
        "address": address,
        "locale": given.locale,
        "timezone": given.timezone,
        "attributes": given.attributes,
    }


def users_values(given: Sequence[NamedUser]) -> list[dict[str, Any]]:
    """Read many users, about 50 µs each; of one that is named twice the last word counts. Raises Invalid."""
    faults = list(ids_faults([user.id for user in given], "/users", MOST))
    found: dict[str, dict[str, Any]] = {}
    for index, user in enumerate(given[:MOST]):
        try:
            found[user.id] = user_values(user, user.id, f"/users/{index}")
        except Invalid as error:
            faults += error.errors
        if len(faults) >= FEW:
            break
    if faults:
        raise Invalid(faults[:FEW])
    return list(found.values())


async def set_users(session: AsyncSession, who: Who, values: Sequence[dict[str, Any]]) -> list[Any]:
    """Make users or change them; their rows, each with `made`. Raises Invalid for a zone that Postgres lacks."""
    await _check_zones(session, values)
    return list(await session.execute(_SET, {**who, "users": list(values)}))


async def change_users(session: AsyncSession, who: Who, values: Sequence[dict[str, Any]]) -> int:
    """Make users or change those that differ; how many these are. Raises Invalid for a zone that Postgres lacks."""
    await _check_zones(session, values)
    return len((await session.execute(_CHANGE, {**who, "users": list(values)})).all())


async def _check_zones(session: AsyncSession, values: Sequence[dict[str, Any]]) -> None:
    zones = sorted({value["timezone"] for value in values} - {"UTC"})
    if zones:
        await session.execute(_ZONES, {"zones": zones})


async def make_users(session: AsyncSession, who: Who, ids: Sequence[str]) -> None:
    """Make those of these users that are not there yet: a user is made when first named."""
    await session.execute(_MAKE, {**who, "ids": list(ids)})


async def join(session: AsyncSession, group: Group, who: Who, key: str, ids: Sequence[str]) -> int:
    """Let users into a group; how many were not in yet."""
    await make_users(session, who, ids)
    return len((await session.execute(group.join(), {**who, "key": key, "ids": list(ids)})).all())


async def leave(session: AsyncSession, group: Group, who: Who, key: str, ids: Sequence[str]) -> int:
    """Let users out of a group; how many were in."""
    return len((await session.execute(group.leave(), {**who, "key": key, "ids": list(ids)})).all())


def checked_ids(ids: Sequence[str]) -> list[str]:
    """Check the ids of a bulk call. Raises Invalid."""
    faults: list[Fault] = list(ids_faults(ids, "/users", MOST))
    if faults:
        raise Invalid(faults)
    return list(ids)
