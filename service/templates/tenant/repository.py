"""Keeps what tenants write: new versions, which one is published, what there is. In the caller's transaction."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from service.core.errors import Fault, Invalid
from service.templates.schemas import TemplateIn, VersionOut
from service.templates.tenant.cache import Version, read, read_contents
from service.templates.tenant.content import Needs, Words

MAX_TEMPLATES = 500
MAX_VERSIONS = 1_000

FIND = text("SELECT key, published, newest FROM templates WHERE tenant_id = :tenant_id AND key = :key")
LOCK = text("SELECT key, published, newest FROM templates WHERE tenant_id = :tenant_id AND key = :key FOR UPDATE")
COUNT = text("SELECT count(*) FROM templates WHERE tenant_id = :tenant_id")
PLACE = text("""
INSERT INTO templates (tenant_id, key, newest) VALUES (:tenant_id, :key, 1)
ON CONFLICT (tenant_id, key) DO UPDATE SET newest = templates.newest + 1, updated_at = clock_timestamp()
RETURNING newest
""")
WRITE = text("""
INSERT INTO template_versions (tenant_id, key, version, default_locale, contents, variables, needs, note)
VALUES (:tenant_id, :key, :version, :default_locale, CAST(:contents AS jsonb), CAST(:variables AS jsonb),
    CAST(:needs AS jsonb), :note)
""")
PUBLISH = text("""
UPDATE templates t SET published = :version, updated_at = clock_timestamp()
WHERE t.tenant_id = :tenant_id AND t.key = :key
    AND (CAST(:version AS integer) IS NULL OR EXISTS (
        SELECT FROM template_versions v WHERE v.tenant_id = t.tenant_id AND v.key = t.key AND v.version = :version))
RETURNING newest
""")
VERSIONS = text("""
SELECT v.version, v.note, v.created_at, v.version = t.published AS published,
    ARRAY(SELECT jsonb_object_keys(v.contents) ORDER BY 1) AS locales
FROM template_versions v JOIN templates t ON t.tenant_id = v.tenant_id AND t.key = v.key
WHERE v.tenant_id = :tenant_id AND v.key = :key ORDER BY v.version DESC LIMIT 200
""")
SHOWN = text("""
SELECT t.key, t.published, t.newest, v.default_locale, v.contents::text AS contents, v.variables::text AS variables,
    v.needs::text AS needs
FROM templates t JOIN template_versions v
    ON v.tenant_id = t.tenant_id AND v.key = t.key AND v.version = coalesce(t.published, t.newest)
WHERE t.tenant_id = :tenant_id ORDER BY t.key
""")


async def find(connection: AsyncConnection, tenant_id: UUID, key: str) -> RowMapping | None:
    """A tenant's template: `published` (null: none) and `newest`; None where the tenant has none of this key."""
    found = await connection.execute(FIND, {"tenant_id": tenant_id, "key": key})
    return found.mappings().one_or_none()


async def shown(connection: AsyncConnection, tenant_id: UUID) -> list[RowMapping]:
    """All templates of a tenant, each as published, or as its newest version."""
    return list((await connection.execute(SHOWN, {"tenant_id": tenant_id})).mappings())


async def versions(connection: AsyncConnection, tenant_id: UUID, key: str) -> list[VersionOut]:
    """The newest 200 versions of a template."""
    found = await connection.execute(VERSIONS, {"tenant_id": tenant_id, "key": key})
    return [VersionOut(**{**row, "published": bool(row["published"])}) for row in found.mappings()]


async def write(session: AsyncSession, tenant_id: UUID, key: str, wanted: TemplateIn, needs: dict[str, Needs]) -> int:
    """Write the next version; its number. What says the same as the newest version is the newest version."""
    connection = await session.connection()
    place = {"tenant_id": tenant_id, "key": key}
    known = (await connection.execute(LOCK, place)).one_or_none()
    if known is not None:
        newest = await read(connection, tenant_id, key, known.newest)
        if newest is not None and _same(newest, await read_contents(connection, newest), wanted):
            newest_number: int = known.newest
            return newest_number
    await _check_room(connection, tenant_id, None if known is None else known.newest)
    number: int = (await connection.execute(PLACE, place)).scalar_one()
    values: dict[str, Any] = {
        **place,
        "version": number,
        "default_locale": wanted.default_locale,
        "contents": _json(wanted.contents),
        "variables": None if wanted.variables is None else _json(wanted.variables),
        "needs": _json(needs),
        "note": wanted.note,
    }
    await connection.execute(WRITE, values)
    return number


async def publish(session: AsyncSession, tenant_id: UUID, key: str, version: int | None) -> bool:
    """Make mails of this version from now on; None: of the built-in template. False where there is no such version."""
    done = await session.execute(PUBLISH, {"tenant_id": tenant_id, "key": key, "version": version})
    return done.one_or_none() is not None


async def _check_room(connection: AsyncConnection, tenant_id: UUID, newest: int | None) -> None:
    if newest is None:
        count: int = (await connection.execute(COUNT, {"tenant_id": tenant_id})).scalar_one()
        if count >= MAX_TEMPLATES:
            raise Invalid([Fault("", f"There are {count} templates already, the most that a tenant may have.")])
    elif newest >= MAX_VERSIONS:
        raise Invalid([Fault("", f"There are {newest} versions already, the most of one template: use another key.")])


def _same(newest: Version, contents: dict[str, Words], wanted: TemplateIn) -> bool:
    return (newest.default_locale, contents, newest.variables) == (
        wanted.default_locale,
        wanted.contents,
        wanted.variables,
    )


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
