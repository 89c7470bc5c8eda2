"""Failed tasks of Celery clients that have no row: workers keep them in the Redis list `workers:dead`, newest first."""

from collections.abc import AsyncIterator, Collection, Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

import msgspec
from redis.asyncio import Redis

from callboard_workers.message import Priority
from callboard_workers.redis.protocol import SEPARATOR
from service.health.checks import DEAD
from service.tasks.repository import TaskReport

MAX_READ = 1000
"""Entries of the list that are read, the newest."""
MAX_BYTES = 16 * 1024 * 1024
"""Bytes of the list that are read at most; a message may be large."""
PAGE = 50
UNNAMED = UUID("6f1f5a52-0f0c-4d6e-9a53-3b6a0d6ac1de")
"""Namespace of the ids of messages whose own id is no UUID."""
TAKE = """
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then return 0 end
if KEYS[2] then redis.call('LPUSH', KEYS[2], ARGV[2]) end
return 1
"""


class Buried(msgspec.Struct, frozen=True):
    """One entry: how it is shown, and what it takes to queue it again."""

    report: TaskReport
    entry: bytes
    key: str
    envelope: bytes


async def read(redis: Redis, prefix: str = "") -> list[Buried]:
    """Read the newest entries, bounded in number and bytes. Raises what Redis does."""
    return [_buried(entry, prefix) async for entry in _entries(redis, prefix)]


async def requeue(redis: Redis, ids: Collection[UUID], prefix: str = "") -> list[UUID]:
    """Put entries back on the queues they came from, each once; the id of each that was there."""
    return [id async for id in take(redis, await _of(redis, ids, prefix), prefix, again=True)]


async def remove(redis: Redis, ids: Collection[UUID], prefix: str = "") -> list[UUID]:
    """Delete entries; the id of each that was there."""
    return [id async for id in take(redis, await _of(redis, ids, prefix), prefix, again=False)]


async def take(redis: Redis, entries: Iterable[Buried], prefix: str, *, again: bool) -> AsyncIterator[UUID]:
    """Take entries from the list, `again` back to their queues; yield the id of each that was still there.

    An entry that fails again is another entry: it is neither taken nor counted twice. Raises what Redis does.
    """
    for buried in entries:
        keys = [f"{prefix}{DEAD}", *([buried.key] if again else [])]
        taken: Any = redis.eval(TAKE, len(keys), *keys, buried.entry, buried.envelope)
        if await taken:
            yield buried.report.id


async def _of(redis: Redis, ids: Collection[UUID], prefix: str) -> list[Buried]:
    return [buried for buried in await read(redis, prefix) if buried.report.id in ids] if ids else []


async def _entries(redis: Redis, prefix: str) -> AsyncIterator[bytes]:
    size = 0
    for start in range(0, MAX_READ, PAGE):
        page: Any = redis.lrange(f"{prefix}{DEAD}", start, start + PAGE - 1)
        entries: list[bytes] = await page
        for entry in entries:
            size += len(entry)
            if size > MAX_BYTES:
                return
            yield entry
        if len(entries) < PAGE:
            return


def _buried(entry: bytes, prefix: str) -> Buried:
    found = msgspec.msgpack.decode(entry)
    key, envelope = str(found["key"]), bytes(found["envelope"])
    headers = _headers(envelope)
    queue, _, step = key.removeprefix(prefix).partition(SEPARATOR)
    moment = datetime.fromtimestamp(float(found["at"]), UTC)
    given = str(headers.get("id") or "")
    report = TaskReport(
        id=(id := _uuid(given, entry)), task_id=id, name=str(headers.get("task") or "unknown")[:200], status="FAILURE",
        state="dead", queue=queue, priority=Priority.of(int(step) if step.isdigit() else 0).value, request_id=None,
        attempts=0, crashes=0, snoozes=0, error={"type": "Buried", "message": str(found["reason"])}, outcome=None,
        result=None, progress=None, worker=None, created_at=moment, due_at=moment, expires_at=None, started_at=None,
        finished_at=moment, updated_at=moment, history=[],
    )  # fmt: skip
    return Buried(report, entry, key, envelope)


def _headers(envelope: bytes) -> dict[str, Any]:
    """The headers of a message that may be anything."""
    try:
        payload = msgspec.json.decode(envelope)
        headers = payload.get("headers")
    except (msgspec.DecodeError, AttributeError, RecursionError, UnicodeDecodeError):
        return {}
    return headers if isinstance(headers, dict) else {}


def _uuid(text: str, entry: bytes) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        return uuid5(UNNAMED, text or entry.hex())
