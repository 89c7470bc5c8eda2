"""The accept path: concurrent requests of this process become one statement, one round trip and one COMMIT.

A batch writes, in one statement, the Idempotency-Keys, the records of the keys that were new, and the ledger rows of
the records that were new; then it rings for all of them at once. It knows no domain: a slice names its table.
"""

import enum
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import asyncpg
import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from callboard_workers.common.batcher import Batcher
from callboard_workers.ledger import rows
from callboard_workers.message import Message
from service.db.tenancy import array
from service.web import accept_sql
from service.web.accept_sql import Table
from service.web.idempotency import Answer, Once, idempotency, in_progress, replay
from service.web.request import Request

HEAD_START = 0.05
"""Seconds that a batch waits for the one before it, unless it is full: each costs a statement, a COMMIT, a bell."""
MAX_WEIGHT = 8 * 1024 * 1024
"""Bytes of the requests of one batch: it is written on the loop, as one JSON document."""

_encode = msgspec.json.Encoder().encode


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """What one request stores, and its answer if it is stored.

    `records`: one tuple for each row, in the order of the table's columns, its id (uuid) first. `messages`: (id of the
    record it belongs to, message) pairs; a message is stored only with its record. `may_conflict`: a record carries a
    value of a unique index other than its id; such a record is not stored twice, and `accept` says RECORD_CONFLICT.
    """

    records: Sequence[tuple[Any, ...]]
    messages: Sequence[tuple[UUID, Message]]
    answer: Answer
    may_conflict: bool = False


class Outcome(enum.StrEnum):
    """What became of a submission."""

    INSERTED = "inserted"
    REPLAYED = "replayed"
    RECORD_CONFLICT = "record-conflict"


class Accepted(msgspec.Struct, frozen=True):
    """The outcome and what to answer: the submission's own answer, or the one of the first request with this key.

    After RECORD_CONFLICT nothing of this request is stored, its Idempotency-Key included, and `answer` is not to be
    sent: look the earlier record up.
    """

    outcome: Outcome
    answer: Answer


class _Item(msgspec.Struct, frozen=True):
    tenant_id: UUID
    once: Once | None
    submission: Submission
    size: int


async def accept(request: Request, table: Table, submission: Submission) -> Accepted:
    """Store `submission` with the request's Idempotency-Key, atomically, and ring for its messages after the commit.

    Raises Invalid where the key came with another request (422), Conflict where one with it is in progress (409), and
    what Postgres raises.
    """
    intakes: dict[str, Intake] = request.app.state.intakes
    intake = intakes.get(table.name)
    if intake is None:
        state = request.app.state
        ring: Callable[[Sequence[Message]], None] = state.publisher.ring
        intake = intakes[table.name] = Intake(
            state.engine, table, ring, state.settings.db_statement_timeout, state.settings.db_accept_timeout
        )
    once = await idempotency(request)
    size = len(await request.body())
    return await intake.submit(request.user.tenant_id, once, _marked(request, submission), size)


def _marked(request: Request, submission: Submission) -> Submission:
    """Note on each message how it came in: the story of the request begins there. The answer is written once."""
    scope = request.scope
    came = scope.get("received_at") or datetime.now(UTC)
    note = {"route": f"{scope['method']} {scope['path']}", "received_at": cast("datetime", came).isoformat()}
    messages = [
        (owner, msgspec.structs.replace(message, headers=message.headers | note))
        for owner, message in submission.messages
    ]
    answer = submission.answer
    written = Answer(answer.status, msgspec.Raw(_encode(answer.body)), answer.headers)
    return Submission(
        records=submission.records, messages=messages, answer=written, may_conflict=submission.may_conflict
    )


class Intake:
    """Takes the submissions of one table, at most 200 or 8 MiB to a batch and two batches at a time.

    The second leaves when it is full or the first has been away for 50 ms.

    `timeout` bounds each statement, `patience` how long one submission waits (both in seconds).
    """

    def __init__(
        self,
        engine: AsyncEngine,
        table: Table,
        ring: Callable[[Sequence[Message]], None],
        timeout: float = 5.0,
        patience: float = 2.0,
    ) -> None:
        self._engine = engine
        self._table = table
        self._ring = ring
        self._timeout = timeout
        self._batcher: Batcher[_Item, Accepted] = Batcher(
            self._flush, patience=patience, weigh=_weight, max_weight=MAX_WEIGHT, head_start=HEAD_START
        )

    async def submit(self, tenant_id: UUID, once: Once | None, submission: Submission, size: int = 0) -> Accepted:
        """Store a submission of a tenant, whose request had `size` bytes.

        A caller that is cancelled before its batch leaves stores nothing.

        Raises TimeoutError where it is not stored within `patience` seconds: then nobody knows whether it will be.
        """
        return await self._batcher.submit(_Item(tenant_id, once, submission, size))

    async def close(self) -> None:
        """Take nothing more, and return when all that was taken is stored."""
        await self._batcher.close()

    async def _flush(self, items: list[_Item]) -> list[Accepted | Exception]:
        leaders = _leaders(items)
        async with self._engine.connect() as connection:
            try:
                stored = await self._store(connection, list(leaders.values()))
            except (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError):
                await connection.invalidate()
                raise
        results = [self._result(item, leaders, stored) for item in items]
        self._ring_for(items, results)
        return results

    async def _store(self, connection: AsyncConnection, items: list[_Item]) -> "_Stored":
        raw = cast("asyncpg.Connection", (await connection.get_raw_connection()).driver_connection)
        keyed = sorted((item for item in items if item.once), key=_place)
        sql = accept_sql.accept(self._table, keyed=bool(keyed))
        acting = array(item.tenant_id for item in items)
        values = [*([_keys(keyed)] if keyed else []), self._records(items), _messages(items), acting]
        if not any(item.submission.may_conflict for item in keyed):
            found = await raw.fetch(sql, *values, timeout=self._timeout)
            return await self._missing(raw, keyed, _Stored.read(found), acting)
        async with raw.transaction():
            await raw.execute(accept_sql.ACT, acting, timeout=self._timeout)
            stored = _Stored.read(await raw.fetch(sql, *values, timeout=self._timeout))
            stored = await self._missing(raw, keyed, stored, acting)
            await self._forget(raw, keyed, stored)
        return stored

    async def _missing(self, raw: asyncpg.Connection, keyed: list[_Item], stored: "_Stored", acting: str) -> "_Stored":
        """Read the answers of keys that another process stored after our statement began: rare."""
        lost = [item.once for item in keyed if item.once and not stored.decided(item)]
        if lost:
            tenants, keys = [once.tenant_id for once in lost], [once.key for once in lost]
            async with raw.transaction():
                await raw.execute(accept_sql.ACT, acting, timeout=self._timeout)
                for row in await raw.fetch(accept_sql.FIND_KEYS, tenants, keys, timeout=self._timeout):
                    stored.answers[row["tenant_id"], row["key"]] = row
        return stored

    async def _forget(self, raw: asyncpg.Connection, keyed: list[_Item], stored: "_Stored") -> None:
        """Give back the keys of the requests whose record was there already, before the commit."""
        lost = [item.once for item in keyed if item.once and stored.took_key(item) and not stored.has_records(item)]
        if lost:
            await raw.execute(accept_sql.FORGET_KEYS, [once.tenant_id for once in lost], [once.key for once in lost])

    def _records(self, items: list[_Item]) -> str:
        """The records as a JSON array, each with the marks of its request's key."""
        shape, width, found = accept_sql.record_shape(self._table), len(self._table.columns), []
        for item in items:
            marks = (item.once.tenant_id, item.once.key) if item.once else (None, None)
            for record in item.submission.records:
                if len(record) != width:
                    raise ValueError(f"a record of {self._table.name} has {width} values, this one {len(record)}")
                found.append(shape(*marks, *record))
        return _json(found)

    def _result(self, item: _Item, leaders: dict[object, _Item], stored: "_Stored") -> Accepted | Exception:
        leader = leaders[_identity(item)]
        once = item.once
        if once is None or stored.took_key(leader):
            if not stored.has_records(leader):
                return Accepted(Outcome.RECORD_CONFLICT, item.submission.answer)
            if leader is item:
                return Accepted(Outcome.INSERTED, item.submission.answer)
            return _replayed(
                cast("Once", once), cast("Once", leader.once).fingerprint, *_texts(leader.submission.answer)
            )
        row = stored.answers.get((once.tenant_id, once.key))
        if row is None:
            return in_progress()
        return _replayed(once, row["fingerprint"], row["status"], row["response"], row["headers"])

    def _ring_for(self, items: list[_Item], results: list[Accepted | Exception]) -> None:
        due = [
            message
            for item, result in zip(items, results, strict=True)
            if isinstance(result, Accepted) and result.outcome is Outcome.INSERTED
            for _, message in item.submission.messages
            if message.due_at is None and not message.delay
        ]
        if due:
            self._ring(due)


class _Stored(msgspec.Struct):
    """What one statement answered: the records it stored, the keys it took, the answers of the keys it did not."""

    records: set[UUID]
    keys: set[tuple[UUID, str]]
    answers: dict[tuple[UUID, str], Any]

    @classmethod
    def read(cls, found: Sequence[Any]) -> "_Stored":
        made = cls(set(), set(), {})
        for row in found:
            if row["id"] is not None:
                made.records.add(row["id"])
            elif row["fingerprint"] is None:
                made.keys.add((row["tenant_id"], row["key"]))
            else:
                made.answers[row["tenant_id"], row["key"]] = row
        return made

    def has_records(self, item: _Item) -> bool:
        return all(record[0] in self.records for record in item.submission.records)

    def took_key(self, item: _Item) -> bool:
        return item.once is None or (item.once.tenant_id, item.once.key) in self.keys

    def decided(self, item: _Item) -> bool:
        once = item.once
        return once is None or (once.tenant_id, once.key) in self.keys or (once.tenant_id, once.key) in self.answers


def _weight(item: _Item) -> int:
    return item.size


def _leaders(items: list[_Item]) -> dict[object, _Item]:
    """Take the first item of each Idempotency-Key, and every item without one; the others follow what it gets."""
    found: dict[object, _Item] = {}
    for item in items:
        found.setdefault(_identity(item), item)
    return found


def _identity(item: _Item) -> object:
    return (item.once.tenant_id, item.once.key) if item.once else id(item)


def _place(item: _Item) -> tuple[bytes, str]:
    # Two processes that store overlapping sets of keys take them in one order, so they cannot deadlock.
    once = cast("Once", item.once)
    return once.tenant_id.bytes, once.key


def _keys(keyed: list[_Item]) -> str:
    found = []
    for item in keyed:
        once, answer = cast("Once", item.once), item.submission.answer
        values = (once.tenant_id, once.key, once.fingerprint, answer.status, answer.body, answer.headers, once.ttl)
        found.append(accept_sql.KEY_SHAPE(*values))
    return _json(found)


def _messages(items: list[_Item]) -> str:
    return _json(
        [
            accept_sql.MESSAGE_SHAPE(owner, *rows.row(message))
            for item in items
            for owner, message in item.submission.messages
        ]
    )


def _json(rows: list[msgspec.Struct]) -> str:
    return _encode(rows).decode()


def _texts(answer: Answer) -> tuple[int, str, str]:
    return answer.status, _encode(answer.body).decode(), _encode(answer.headers).decode()


def _replayed(once: Once, fingerprint: bytes, status: int, response: str, headers: str) -> Accepted | Exception:
    try:
        return Accepted(Outcome.REPLAYED, replay(once, fingerprint, status, response, headers))
    except Exception as error:
        return error
