"""The stored templates of all tenants, as a process reads them: what is published, and any version ever written."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.emails.library.contents import Needs, Words, nearest
from service.emails.template_source import Declared

FRESH = 1.0
"""Seconds after which a process sees that another version was published."""
TENANTS = 10_000
VERSIONS = 500

PUBLISHED = text("SELECT key, published FROM templates WHERE tenant_id = :tenant_id AND published IS NOT NULL")
VERSION = text(
    "SELECT tenant_id, key, version, default_locale, contents::text, variables::text, needs::text"
    " FROM template_versions WHERE tenant_id = :tenant_id AND key = :key AND version = :version"
)

K = TypeVar("K")
V = TypeVar("V")


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a template: it never changes."""

    tenant_id: UUID
    key: str
    version: int
    default_locale: str
    contents: dict[str, Words]
    variables: dict[str, Declared] | None
    needs: dict[str, Needs]

    def nearest(self, locale: str | None) -> str | None:
        """The language nearest to the wanted one; None where there is neither it nor the default."""
        return nearest(self.contents, locale, self.default_locale)

    def name(self, locale: str) -> str:
        """What renderers call one language of this version."""
        return f"{self.tenant_id.hex}/{self.key}/{self.version}/{locale}"


class Shelf:
    """Finds versions; what was found is kept for a while, versions for as long as there is room."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._published: _Kept[UUID, dict[str, int]] = _Kept(TENANTS, FRESH)
        self._versions: _Kept[tuple[UUID, str, int], Version] = _Kept(VERSIONS, float("inf"))

    async def published(self, tenant_id: UUID, key: str) -> Version | None:
        """The published version of a tenant's template, at most a second old; None where the tenant has none."""
        known = self._published.get(tenant_id)
        if known is None:
            async with self._engine.connect() as connection:
                found = await connection.execute(PUBLISHED, {"tenant_id": tenant_id})
                known = self._published.put(tenant_id, {row.key: row.published for row in found})
        return await self.version(tenant_id, key, known[key]) if key in known else None

    async def version(self, tenant_id: UUID, key: str, number: int) -> Version | None:
        """Any version, by its number."""
        place = tenant_id, key, number
        if (known := self._versions.get(place)) is not None:
            return known
        async with self._engine.connect() as connection:
            found = await read(connection, *place)
        return None if found is None else self._versions.put(place, found)

    def forget(self, tenant_id: UUID) -> None:
        """Look again what a tenant has published: this process just changed it."""
        self._published.drop(tenant_id)


async def read(connection: AsyncConnection, tenant_id: UUID, key: str, number: int) -> Version | None:
    """Read one version."""
    values = {"tenant_id": tenant_id, "key": key, "version": number}
    row = (await connection.execute(VERSION, values)).one_or_none()
    if row is None:
        return None
    return Version(
        tenant_id=row.tenant_id,
        key=row.key,
        version=row.version,
        default_locale=row.default_locale,
        contents=msgspec.json.decode(row.contents, type=dict[str, Words]),
        variables=None if row.variables is None else msgspec.json.decode(row.variables, type=dict[str, Declared]),
        needs=msgspec.json.decode(row.needs, type=dict[str, Needs]),
    )


class _Kept(Generic[K, V]):
    """The most recent entries, each for a time."""

    def __init__(self, size: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._size, self._seconds, self._clock = size, seconds, clock
        self._found: OrderedDict[K, tuple[float, Any]] = OrderedDict()

    def get(self, key: K) -> V | None:
        at, value = self._found.get(key, (float("-inf"), None))
        if value is None or self._clock() - at > self._seconds:
            return None
        self._found.move_to_end(key)
        found: V = value
        return found

    def put(self, key: K, value: V) -> V:
        self._found[key] = self._clock(), value
        self._found.move_to_end(key)
        while len(self._found) > self._size:
            self._found.popitem(last=False)
        return value

    def drop(self, key: K) -> None:
        self._found.pop(key, None)
