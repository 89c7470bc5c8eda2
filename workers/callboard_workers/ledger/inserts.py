"""Insert: a message becomes a row in its caller's transaction, and its doorbell rings once that is committed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary, WeakSet

import msgspec
from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session

from callboard_workers.ledger import rows, uniques
from callboard_workers.ledger.schema import groups
from callboard_workers.message import Message

CHUNK = 1_000
"""Rows per statement."""

Ring = Callable[[Sequence[Message]], None]


async def insert(where: AsyncSession | AsyncConnection, messages: Sequence[Message]) -> set[UUID]:
    """Insert what is not there yet, in the transaction of `where`; the ids that are new.

    Left out: an id that exists, and a message whose key an unfinished one of the same actor and tenant bears.
    """
    connection = await _connection(where)
    new: set[UUID] = set()
    for start in range(0, len(messages), CHUNK):
        columns = rows.columns([rows.row(message) for message in messages[start : start + CHUNK]])
        answer = await connection.exec_driver_sql(rows.INSERT_ROWS, columns)
        new.update(answer.scalars())
    return new


async def place(where: AsyncSession | AsyncConnection, message: Message) -> UUID:
    """Insert a message that is to be unique, as its `once` says; the id of the one that stands. Raises Duplicate."""
    return await uniques.place(await _connection(where), message)


async def insert_group(
    where: AsyncSession | AsyncConnection, id: UUID, members: Sequence[UUID], callback: dict[str, Any]
) -> None:
    """Note what a group waits for, in the transaction of `where`, before its members are inserted."""
    connection = await _connection(where)
    values = {"id": id, "members": list(members), "pending": len(members), "callback": msgspec.to_builtins(callback)}
    await connection.execute(groups.insert().values(values))


async def standing(where: AsyncSession | AsyncConnection, message: Message) -> UUID | None:
    """The unfinished message that bears this message's key, if any."""
    if message.key is None:
        return None
    connection = await _connection(where)
    bearer = (message.tenant_id, message.actor, message.key)
    found: UUID | None = (await connection.exec_driver_sql(uniques.STANDING, bearer)).scalar()
    return found


async def _connection(where: AsyncSession | AsyncConnection) -> AsyncConnection:
    return await where.connection() if isinstance(where, AsyncSession) else where


class Bells:
    """Doorbells of one session or connection, held back until its transaction is committed; a rollback drops them."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self.waiting: list[Message] = []

    def committed(self) -> None:
        """Ring all that wait."""
        waiting, self.waiting = self.waiting, []
        if waiting:
            self.ring(waiting)

    def dropped(self) -> None:
        """Ring none of them."""
        self.waiting.clear()


_ringing: WeakSet[asyncio.Task[None]] = WeakSet()
"""The doorbells on their way after a connection's commit."""


async def rung() -> None:
    """Wait for the doorbells of commits that were made on this loop."""
    loop = asyncio.get_running_loop()
    while ringing := {task for task in _ringing if task.get_loop() is loop and not task.done()}:
        await asyncio.wait(ringing)


_sessions: WeakKeyDictionary[Session, Bells] = WeakKeyDictionary()
_connections: WeakKeyDictionary[Connection, Bells] = WeakKeyDictionary()


def after_commit(where: AsyncSession | AsyncConnection, ring: Ring, messages: Sequence[Message]) -> None:
    """Have `ring(messages)` called when the transaction of `where` is committed, and not at all if it is not."""
    if isinstance(where, AsyncSession):
        session = where.sync_session
        bells = _sessions.get(session) or _listen_session(session, ring)
    else:
        connection = where.sync_connection
        if connection is None:
            raise ValueError("the connection is not open")
        bells = _connections.get(connection) or _listen_connection(connection, ring)
    bells.waiting.extend(messages)


def _listen_session(session: Session, ring: Ring) -> Bells:
    bells = _sessions[session] = Bells(ring)

    def committed(session: Session) -> None:
        if not session.in_nested_transaction():  # releasing a savepoint commits nothing
            bells.committed()

    def rolled_back(session: Session) -> None:
        bells.dropped()

    event.listen(session, "after_commit", committed)
    event.listen(session, "after_rollback", rolled_back)
    return bells


def _listen_connection(connection: Connection, ring: Ring) -> Bells:
    bells = _connections[connection] = Bells(ring)
    ringing: set[asyncio.Task[None]] = set()

    def committing(connection: Connection) -> None:
        if bells.waiting:
            task = asyncio.get_running_loop().create_task(_once_committed(connection, bells))
            ringing.add(task)
            _ringing.add(task)
            task.add_done_callback(ringing.discard)

    def rolled_back(connection: Connection) -> None:
        bells.dropped()

    event.listen(connection, "commit", committing)
    event.listen(connection, "rollback", rolled_back)
    return bells


async def _once_committed(connection: Connection, bells: Bells) -> None:
    """SQLAlchemy tells of a connection's COMMIT before it is sent: wait, a few milliseconds, until it was answered."""
    waiting, bells.waiting = bells.waiting, []
    transaction = connection.get_transaction()
    async with asyncio.timeout(30):
        while transaction is not None and transaction.is_active:  # noqa: ASYNC110 (nothing tells)
            await asyncio.sleep(0.001)
    bells.ring(waiting)
