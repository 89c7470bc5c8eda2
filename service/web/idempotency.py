"""`Idempotency-Key`: the same request twice is one request, and gets the first answer again.

The key, a fingerprint of the request and the answer are a row of `idempotency_keys`, written in the transaction of the
record itself. The batched accept path writes the same row (`service.web.accept`); `once` is for every other route.
"""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast
from uuid import UUID

import msgspec
from litestar import Response
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from service.core.errors import BadRequest, Conflict, Invalid, ServiceError
from service.db import engine
from service.web.json_response import Quick
from service.web.problem_details import problem
from service.web.request import Request

KEY = re.compile(r"[\x20-\x7e]{1,255}")
LARGE_BYTES = 1024 * 1024  # of a body that is hashed in a thread


class Answer(msgspec.Struct, frozen=True):
    """What a route answers: the status, a JSON body, headers such as Location."""

    status: int
    body: Any
    headers: Mapping[str, str] = {}

    def response(self, replayed: bool = False) -> Response[Any]:
        """Make the HTTP response; `replayed` adds `Idempotency-Replayed: true`."""
        headers = {**self.headers, "Idempotency-Replayed": "true"} if replayed else self.headers
        return Quick(self.status, msgspec.json.encode(self.body), headers)


def _hashed(place: bytes, body: bytes) -> bytes:
    found = hashlib.sha256(place)
    found.update(body)
    return found.digest()


class Once(msgspec.Struct, frozen=True):
    """A request's idempotency: the tenant's `key` and the `fingerprint` (32 bytes) of method, path and body."""

    tenant_id: UUID
    key: str
    fingerprint: bytes
    ttl: int


async def idempotency(request: Request) -> Once | None:
    """Read the request's Idempotency-Key, bare or quoted; None without one. Raises BadRequest for a malformed key."""
    if b"idempotency-key" not in cast("dict[str, Any]", request.scope)["plain_headers"]:
        return None
    given = [value for name, value in request.scope["headers"] if name == b"idempotency-key"]
    key = given[0].decode("latin-1").strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if len(given) > 1 or not KEY.fullmatch(key) or not key.strip():
        raise BadRequest("Idempotency-Key must be 1 to 255 printable ASCII characters.", code="bad-idempotency-key")
    query = request.scope["query_string"]
    place = f"{request.method}\n{request.scope['path']}\n".encode() + (b"?" + query + b"\n" if query else b"")
    body = await request.body()
    fingerprint = _hashed(place, body) if len(body) < LARGE_BYTES else await asyncio.to_thread(_hashed, place, body)
    return Once(request.user.tenant_id, key, fingerprint, request.app.state.settings.idempotency_ttl)


async def once(request: Request, work: Callable[[AsyncSession], Awaitable[Answer]]) -> Response[Any]:
    """Run `work` in the request's one transaction, at most once per Idempotency-Key, and answer.

    A finished key gets its first answer; one in progress 409 with Retry-After; one that came with another body 422.
    A refusal of `work` (4xx but 429) undoes what it did and is kept as the answer; 429, 5xx and errors keep nothing.
    """
    mark = await idempotency(request)
    if mark is None:
        async with engine.transaction(request.app.state.sessions) as session:
            return (await work(session)).response()
    answer, replayed = await once_by(request, mark, work)
    return answer.response(replayed)


async def once_by(
    request: Request, mark: Once, work: Callable[[AsyncSession], Awaitable[Answer]]
) -> tuple[Answer, bool]:
    """Run `work` as `once` does, at most once per `mark`; its answer, and whether that is an earlier one."""
    async with engine.transaction(request.app.state.sessions) as session:
        if (earlier := await _begin(session, mark)) is not None:
            return earlier, True
        answer = await _attempt(request, session, work)
        kept = await session.execute(_KEEP, _values(mark, answer))
        if kept.one_or_none() is None:  # another path stored this key meanwhile: undo, and let the caller ask again
            raise in_progress()
    return answer, False


async def _begin(session: AsyncSession, mark: Once) -> Answer | None:
    """Take the key for this transaction. Returns the stored answer where it is finished. Raises Conflict, Invalid."""
    if not (await session.execute(_LOCK, {"name": f"{mark.tenant_id}:{mark.key}"})).scalar_one():
        raise in_progress()
    row = (await session.execute(_FIND, {"tenant_id": mark.tenant_id, "key": mark.key})).one_or_none()
    if row is None:
        return None
    return replay(mark, row.fingerprint, row.status, row.response, row.headers)


def replay(mark: Once, fingerprint: bytes, status: int, response: str, headers: str) -> Answer:
    """Return the stored answer (two JSON texts). Raises Invalid (422) where the key came with another request."""
    if fingerprint != mark.fingerprint:
        raise Invalid(
            (), "This Idempotency-Key was used for another request: use a new key.", code="idempotency-key-reused"
        )
    return Answer(status, msgspec.Raw(response.encode()), msgspec.json.decode(headers, type=dict[str, str]))


def in_progress() -> Conflict:
    """Make the 409 of a key whose first request has no answer yet."""
    return Conflict(
        "A request with this Idempotency-Key is in progress.",
        code="idempotency-in-progress",
        headers={"Retry-After": "1"},
    )


async def _attempt(
    request: Request, session: AsyncSession, work: Callable[[AsyncSession], Awaitable[Answer]]
) -> Answer:
    savepoint = await session.begin_nested()
    try:
        answer = await work(session)
    except ServiceError as error:
        if error.status >= 500 or error.status == 429:
            raise
        await savepoint.rollback()
        return Answer(error.status, problem(request.request_id, error), error.headers)
    await savepoint.commit()
    return answer


def _values(mark: Once, answer: Answer) -> dict[str, Any]:
    return {
        "tenant_id": mark.tenant_id,
        "key": mark.key,
        "fingerprint": mark.fingerprint,
        "status": answer.status,
        "response": msgspec.json.encode(answer.body).decode(),
        "headers": msgspec.json.encode(dict(answer.headers)).decode(),
        "ttl": mark.ttl,
    }


_LOCK = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))")
_FIND = text(
    "SELECT fingerprint, status, response::text AS response, headers::text AS headers FROM idempotency_keys"
    " WHERE tenant_id = :tenant_id AND key = :key AND expires_at > clock_timestamp()"
)
_KEEP = text(
    "INSERT INTO idempotency_keys (tenant_id, key, fingerprint, status, response, headers, expires_at)"
    " VALUES (:tenant_id, :key, :fingerprint, :status, CAST(:response AS json), CAST(:headers AS json),"
    " clock_timestamp() + make_interval(secs => :ttl))"
    " ON CONFLICT (tenant_id, key) DO UPDATE SET fingerprint = excluded.fingerprint, status = excluded.status,"
    " response = excluded.response, headers = excluded.headers, created_at = clock_timestamp(),"
    " expires_at = excluded.expires_at WHERE idempotency_keys.expires_at <= clock_timestamp() RETURNING key"
)
