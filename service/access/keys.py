"""Finds who is behind a key: a look in a short-lived cache, else one statement."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, TypeVar, cast
from uuid import UUID

import asyncpg
import structlog
from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from uuid_utils.compat import uuid7

from callboard_workers.context import of_nobody
from service.access.models import ApiKey, Tenant
from service.access.secrets import Mode, digest, is_whole, new_key, prefix
from service.db.engine import is_away
from service.web.auth import Principal

log = structlog.get_logger("service.access")

T = TypeVar("T")

TTL = 4.0  # seconds that a revoked key may still be taken
USED_EVERY = 30.0  # seconds between two writes of last_used_at
MAX_CACHED = 10_000
"""Good keys that are cached, and separately unknown ones: of each kind the oldest goes first."""

GUARD_EVERY = 2.0  # seconds between two looks at the keys of open streams

IS_GOOD = text("SELECT access_key_is_good(:key_id)")
NOT_GOOD = text("SELECT id FROM unnest(CAST(:ids AS uuid[])) AS id WHERE NOT access_key_is_good(id)")
NOTE_USED = text("SELECT access_note_used(CAST(:seen AS uuid[]))")
FIND = "SELECT id, tenant_id, scopes, mode FROM access_find_key($1)"


class Watch:
    """The key of one open stream: `over` once the key is revoked or has expired."""

    def __init__(self, end: Callable[[], None] | None = None) -> None:
        self.over = False
        self._end = end

    def finish(self) -> None:
        """End the stream."""
        self.over = True
        if self._end is not None:
            self._end()


def _keep(cache: dict[bytes, T], key: bytes, value: T) -> None:
    """Store a value as the newest of at most MAX_CACHED."""
    cache.pop(key, None)
    while len(cache) >= MAX_CACHED:
        del cache[next(iter(cache))]
    cache[key] = value


class Keyring:
    """The keys of every tenant, as one process sees them.

    A key that is not whole is refused without a look. Answers are kept for 4 seconds, those of unknown keys apart from
    those of good ones: a stranger who tries keys evicts nobody's. `patience` bounds a look, `silence` how long Postgres
    may say nothing in it (both in seconds).
    """

    def __init__(self, engine: AsyncEngine, patience: float = 2.0, silence: float = 1.0) -> None:
        self._engine = engine
        self._patience = patience
        self._silence = silence
        self._good: dict[bytes, tuple[float, Principal]] = {}
        self._unknown: dict[bytes, float] = {}
        self._watched: dict[UUID, set[Watch]] = {}
        self._looking: dict[bytes, asyncio.Task[Principal | None]] = {}
        self._used: set[UUID] = set()

    async def find(self, key: str) -> Principal | None:
        """Return the principal of `key`, or None. Raises what Postgres raises when it is away."""
        if not is_whole(key):
            return None
        hashed, now = digest(key), time.monotonic()
        cached = self._good.get(hashed)
        if cached is not None and cached[0] >= now:
            found: Principal | None = cached[1]
        elif self._unknown.get(hashed, 0.0) >= now:
            return None
        else:
            found = await self._look_once(hashed)
        if found is not None:
            self._used.add(found.key_id)
        return found

    async def is_good(self, key_id: UUID) -> bool:
        """Report whether a key is known, not revoked and not expired, by Postgres. Raises what Postgres raises."""
        async with asyncio.timeout(self._patience), self._engine.connect() as connection:
            return bool((await connection.execute(IS_GOOD, {"key_id": key_id})).scalar_one())

    @contextmanager
    def watch(self, key_id: UUID, end: Callable[[], None] | None = None) -> Iterator[Watch]:
        """Watch the key of an open stream: soon after it is revoked or expires, `over` is set and `end` is called."""
        watch = Watch(end)
        self._watched.setdefault(key_id, set()).add(watch)
        try:
            yield watch
        finally:
            self._watched[key_id].discard(watch)
            if not self._watched[key_id]:
                del self._watched[key_id]

    async def guard(self) -> None:
        """Forever: end the streams of keys that are revoked or expired; one statement, however many are open."""
        while True:
            await asyncio.sleep(GUARD_EVERY)
            try:
                await self._end_revoked()
            except Exception as error:
                log.warning("access_upkeep_failed", error=type(error).__name__, away=is_away(error))

    async def _end_revoked(self) -> None:
        if not self._watched:
            return
        async with asyncio.timeout(self._patience), self._engine.connect() as connection:
            revoked = (await connection.execute(NOT_GOOD, {"ids": list(self._watched)})).scalars().all()
        for key_id in revoked:
            for watch in tuple(self._watched.get(key_id, ())):
                watch.finish()

    async def _look_once(self, hashed: bytes) -> Principal | None:
        task = self._looking.get(hashed)
        if task is None:  # a hundred requests that miss together ask once
            task = self._looking[hashed] = asyncio.create_task(self._look(hashed), context=of_nobody())
            task.add_done_callback(lambda _: self._looking.pop(hashed, None))
        return await asyncio.shield(task)

    async def _look(self, hashed: bytes) -> Principal | None:
        async with asyncio.timeout(self._patience), self._engine.connect() as connection:
            raw = cast("asyncpg.Connection", (await connection.get_raw_connection()).driver_connection)
            try:
                row = await raw.fetchrow(FIND, hashed, timeout=self._silence)
            except (TimeoutError, asyncio.CancelledError):
                raw.terminate()  # nobody else is to wait for the same silence
                await connection.invalidate()
                raise
        found = _principal(row) if row else None
        until = time.monotonic() + TTL
        if found is None:
            _keep(self._unknown, hashed, until)
        else:
            _keep(self._good, hashed, (until, found))
        return found

    async def note_used(self) -> None:
        """Write `last_used_at` of the keys seen since the last call."""
        seen, self._used = self._used, set()
        if seen:
            async with self._engine.begin() as connection:
                await connection.execute(NOTE_USED, {"seen": sorted(seen)})

    async def tend(self) -> None:
        """Forever: note which keys are used."""
        while True:
            await asyncio.sleep(USED_EVERY)
            try:
                await self.note_used()
            except Exception as error:
                log.warning("access_upkeep_failed", error=type(error).__name__, away=is_away(error))


def _principal(row: asyncpg.Record) -> Principal:
    tenant, key, scopes = row["tenant_id"], row["id"], frozenset(row["scopes"])
    return Principal(tenant, key, scopes, row["mode"], tenant=str(tenant), key=f"ak_{key.hex}")


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
    return await _store(session, mode, tenant_id=tenant_id, scopes=scopes, name=name, expires_at=expires_at)


async def rotate(session: AsyncSession, key_id: UUID, overlap: timedelta) -> tuple[ApiKey, str] | None:
    """Make a key that may do what the key `key_id` may, which goes on for `overlap` at most; None if that is over.

    The new key lives as long as the old one was made for. Returns its row and its text.
    """
    old = (await session.execute(select(ApiKey).where(ApiKey.id == key_id).with_for_update())).scalar_one_or_none()
    now = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    if old is None or old.revoked_at is not None or (old.expires_at is not None and old.expires_at <= now):
        return None
    expires = None if old.expires_at is None else now + (old.expires_at - old.created_at)
    as_old = {"tenant_id": old.tenant_id, "scopes": old.scopes, "name": old.name}
    made = await _store(session, cast("Mode", old.mode), **as_old, expires_at=expires)
    old.expires_at = min(now + overlap, old.expires_at or now + overlap)
    return made


async def _store(session: AsyncSession, mode: Mode, **columns: Any) -> tuple[ApiKey, str]:
    text = new_key(mode)
    columns["scopes"] = list(dict.fromkeys(columns["scopes"]))
    row = ApiKey(id=uuid7(), mode=mode, prefix=prefix(text), hash=digest(text), **columns)
    session.add(row)
    await session.flush()
    return row, text


async def revoke(session: AsyncSession, key_id: UUID) -> bool:
    """Revoke a key; tells whether there was such a key, still good."""
    statement = update(ApiKey).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))
    done = await session.execute(statement.values(revoked_at=func.clock_timestamp()).returning(ApiKey.id))
    return done.scalar_one_or_none() is not None
