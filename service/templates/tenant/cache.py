"""The stored templates of all tenants, as a process reads them: what is published, and any version ever written."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.core.cache import ByteCache
from service.templates.source import Declared
from service.templates.tenant.content import Needs, Words, nearest

FRESH = 1.0
"""Seconds after which a process sees that another version was published."""
PUBLISHED_BYTES = 16 * 1024 * 1024
VERSIONS_BYTES = 32 * 1024 * 1024
SHARE_BYTES = 4 * 1024 * 1024
"""Of one tenant, in either cache. What a template says is not kept here: renderers keep it compiled."""

PUBLISHED = text("SELECT key, published FROM templates WHERE tenant_id = :tenant_id AND published IS NOT NULL")
VERSION = text(
    "SELECT tenant_id, key, version, default_locale, ARRAY(SELECT jsonb_object_keys(contents) ORDER BY 1) AS locales,"
    " variables::text, needs::text"
    " FROM template_versions WHERE tenant_id = :tenant_id AND key = :key AND version = :version"
)
CONTENTS = text(
    "SELECT contents::text FROM template_versions WHERE tenant_id = :tenant_id AND key = :key AND version = :version"
)
WORDS = text(
    "SELECT (contents -> :locale)::text FROM template_versions"
    " WHERE tenant_id = :tenant_id AND key = :key AND version = :version"
)

ENTRY_BYTES = 300
DECODED = 6
"""How many times the length of its JSON a decoded value takes."""


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a template without what it says: it never changes."""

    tenant_id: UUID
    key: str
    version: int
    default_locale: str
    locales: list[str]
    variables: dict[str, Declared] | None
    needs: dict[str, Needs]

    def nearest(self, locale: str | None) -> str | None:
        """The language nearest to the wanted one; None where there is neither it nor the default."""
        return nearest(self.locales, locale, self.default_locale)

    def name(self, locale: str) -> str:
        """What renderers call one language of this version."""
        return f"{self.tenant_id.hex}/{self.key}/{self.version}/{locale}"


class Shelf:
    """Finds versions; what was found is kept for a while, versions for as long as there is room."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._published: ByteCache[UUID, dict[str, int]] = ByteCache(PUBLISHED_BYTES, SHARE_BYTES, ttl=FRESH)
        self._versions: ByteCache[tuple[UUID, str, int], Version] = ByteCache(VERSIONS_BYTES, SHARE_BYTES)

    async def published(self, tenant_id: UUID, key: str) -> Version | None:
        """The published version of a tenant's template, at most a second old; None where the tenant has none."""
        known = self._published.get(tenant_id)
        if known is None:
            async with self._engine.connect() as connection:
                found = await connection.execute(PUBLISHED, {"tenant_id": tenant_id})
                known = {row.key: row.published for row in found}
            size = ENTRY_BYTES * (len(known) + 1)
            self._published.put(tenant_id, known, owner=tenant_id, size=size)
        return await self.version(tenant_id, key, known[key]) if key in known else None

    async def version(self, tenant_id: UUID, key: str, number: int) -> Version | None:
        """Any version, by its number."""
        place = tenant_id, key, number
        if (known := self._versions.get(place)) is not None:
            return known
        async with self._engine.connect() as connection:
            row = await _row(connection, *place)
        if row is None:
            return None
        size = ENTRY_BYTES + DECODED * (len(row.variables or "") + len(row.needs)) + ENTRY_BYTES * len(row.locales)
        return self._versions.put(place, _version(row), owner=tenant_id, size=size)

    async def words(self, version: Version, locale: str) -> Words:
        """Read what a version says in one of its languages."""
        values = {**_place(version.tenant_id, version.key, version.version), "locale": locale}
        async with self._engine.connect() as connection:
            return msgspec.json.decode((await connection.execute(WORDS, values)).scalar_one(), type=Words)

    def forget(self, tenant_id: UUID) -> None:
        """Look again what a tenant has published: this process just changed it."""
        self._published.drop(tenant_id)


async def read(connection: AsyncConnection, tenant_id: UUID, key: str, number: int) -> Version | None:
    """Read one version."""
    row = await _row(connection, tenant_id, key, number)
    return None if row is None else _version(row)


async def read_contents(connection: AsyncConnection, version: Version) -> dict[str, Words]:
    """Read all that a version says, by language: it may be large."""
    values = _place(version.tenant_id, version.key, version.version)
    return msgspec.json.decode((await connection.execute(CONTENTS, values)).scalar_one(), type=dict[str, Words])


def _place(tenant_id: UUID, key: str, number: int) -> dict[str, Any]:
    return {"tenant_id": tenant_id, "key": key, "version": number}


async def _row(connection: AsyncConnection, tenant_id: UUID, key: str, number: int) -> Any:
    return (await connection.execute(VERSION, _place(tenant_id, key, number))).one_or_none()


def _version(row: Any) -> Version:
    return Version(
        tenant_id=row.tenant_id,
        key=row.key,
        version=row.version,
        default_locale=row.default_locale,
        locales=row.locales,
        variables=None if row.variables is None else msgspec.json.decode(row.variables, type=dict[str, Declared]),
        needs=msgspec.json.decode(row.needs, type=dict[str, Needs]),
    )
