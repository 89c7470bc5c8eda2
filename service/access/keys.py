"""Finds who is behind a key: a look in a short-lived cache, else one statement."""

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime
from typing import cast
from uuid import UUID

import asyncpg
import structlog
from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from uuid_utils.compat import uuid7

from service.access.models import ApiKey, IdempotencyKey, Tenant
from service.access.secrets import Mode, digest, is_whole, new_key, prefix
from service.db import is_away
from service.web.principal import Principal

log = structlog.get_logger("service.access")

TTL = 4.0  # seconds that a revoked key may still be taken
USED_EVERY = 30.0  # seconds between two writes of last_used_at
MAX_CACHED = 10_000

FIND = (
    "SELECT id, tenant_id, scopes, mode FROM api_keys"
    " WHERE hash = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())"
)


class Keyring:
    """The keys of every tenant, as one process sees them.

    A key that is not whole is refused without a look. Answers, also "unknown", are kept for 4 seconds.
    """

    def __init__(self, engine: AsyncEngine, patience: float = 2.0) -> None:
        self._engine = engine
        self._patience = patience
        self._cache: dict[bytes, tuple[float, Principal | None]] = {}
        self._looking: dict[bytes, asyncio.Task[Principal | None]] = {}
        self._used: set[UUID] = set()

    async def find(self, key: str) -> Principal | None:
        """Return the principal of `key`, or None. Raises what Postgres raises when it is away."""
        hashed = digest(key)
        cached = self._cache.get(hashed)
        if cached is None or cached[0] < time.monotonic():
            found = await self._look_once(hashed) if is_whole(key) else None
        else:
            found = cached[1]
        if found is not None:
            self._used.add(found.key_id)
        return found

    async def _look_once(self, hashed: bytes) -> Principal | None:
        task = self._looking.get(hashed)
        if task is None:  # a hundred requests that miss together ask once
            task = self._looking[hashed] = asyncio.create_task(self._look(hashed))
            task.add_done_callback(lambda _: self._looking.pop(hashed, None))
        async with asyncio.timeout(self._patience):
            return await asyncio.shield(task)

    async def _look(self, hashed: bytes) -> Principal | None:
        async with self._engine.connect() as connection:
            raw = cast("asyncpg.Connection", (await connection.get_raw_connection()).driver_connection)
            row = await raw.fetchrow(FIND, hashed)
        found = _principal(row) if row else None
        if len(self._cache) >= MAX_CACHED:
            self._cache.clear()
        self._cache[hashed] = (time.monotonic() + TTL, found)
        return found

    async def note_used(self) -> None:
        """Write `last_used_at` of the keys seen since the last call."""
        seen, self._used = self._used, set()
        if seen:
            async with self._engine.begin() as connection:
                statement = update(ApiKey).where(ApiKey.id.in_(sorted(seen)))
                await connection.execute(statement.values(last_used_at=func.clock_timestamp()))

    async def tend(self) -> None:
        """Forever: note which keys are used, and drop the answers of Idempotency-Keys that are over."""
        while True:
            await asyncio.sleep(USED_EVERY)
            try:
                await self.note_used()
                await drop_expired(self._engine)
            except Exception as error:
                log.warning("access_upkeep_failed", error=type(error).__name__, away=is_away(error))


def _principal(row: asyncpg.Record) -> Principal:
    tenant, key, scopes = row["tenant_id"], row["id"], frozenset(row["scopes"])
    return Principal(tenant, key, scopes, row["mode"], tenant=str(tenant), key=f"ak_{key.hex}")


async def drop_expired(engine: AsyncEngine, batch: int = 5_000) -> int:
    """Delete up to `batch` expired Idempotency-Keys; returns how many. Any number of processes may do it at once."""
    old = (
        select(IdempotencyKey.tenant_id, IdempotencyKey.key)
        .where(IdempotencyKey.expires_at < func.clock_timestamp())
        .limit(batch)
        .with_for_update(skip_locked=True)
        .cte("old")
    )
    statement = delete(IdempotencyKey).where(
        IdempotencyKey.tenant_id == old.c.tenant_id, IdempotencyKey.key == old.c.key
    )
    async with engine.begin() as connection:
        return (await connection.execute(statement)).rowcount


async def create(
    session: AsyncSession,
    tenant: str,
    scopes: Sequence[str],
    *,
    name: str = "",
    mode: Mode = "live",
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """Make a key of the tenant called `tenant`, which is made if it is new. Returns its row and its text."""
    statement = insert(Tenant).values(id=uuid7(), name=tenant).on_conflict_do_nothing(index_elements=[Tenant.name])
    await session.execute(statement)
    tenant_id = (await session.execute(select(Tenant.id).where(Tenant.name == tenant))).scalar_one()
    text = new_key(mode)
    row = ApiKey(
        id=uuid7(),
        tenant_id=tenant_id,
        name=name,
        prefix=prefix(text),
        hash=digest(text),
        scopes=list(dict.fromkeys(scopes)),
        mode=mode,
        expires_at=expires_at,
    )
    session.add(row)
    await session.flush()
    return row, text


async def revoke(session: AsyncSession, key_id: UUID) -> bool:
    """Revoke a key; tells whether there was such a key, still good."""
    statement = update(ApiKey).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))
    done = await session.execute(statement.values(revoked_at=func.clock_timestamp()).returning(ApiKey.id))
    return done.scalar_one_or_none() is not None
