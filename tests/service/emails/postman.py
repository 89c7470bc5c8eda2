"""A worker in the hand, for the tests of what it does with mail."""

import email
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from email.message import EmailMessage
from email.policy import default
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from uuid_utils.compat import uuid7

from callboard_workers.execution.attempt import execute
from callboard_workers.message import Delivery
from callboard_workers.policy import Outcome
from callboard_workers.testing import Workbench
from service.db.tenancy import id_in_test_mode
from service.emails import in_process, serializers
from service.emails.events import events
from service.emails.schemas import EmailOut, EmailRequest, Event
from tests.faults.sink import Sink

TENANT = uuid7()
HELLO = {"to": "Ada <ada@example.org>", "subject": "Hello", "text": "Good morning."}


class Post:
    """A worker in the hand, with rows in Postgres and a mail server that misbehaves as its rules say."""

    def __init__(self, engine: AsyncEngine, bench: Workbench, sink: Sink) -> None:
        self.engine, self.bench, self.sink = engine, bench, sink

    async def enqueue(self, request: EmailRequest | None = None, mode: str = "live", **fields: Any) -> UUID:
        made = request or msgspec.convert({**HELLO, **fields}, EmailRequest)
        async with AsyncSession(self.engine) as session:
            id = await in_process.enqueue(
                session, made, tenant_id=id_in_test_mode(TENANT) if mode == "test" else TENANT
            )
            await session.commit()
        return id

    async def work(self, id: UUID) -> Outcome:
        """Answer the doorbell once, at the time it is due."""
        await self.sql("UPDATE messages SET due_at = clock_timestamp() WHERE id = :id AND state = 'queued'", id=id)
        return await execute(self.bench.runtime, Delivery(id=id, actor="emails.send_email", durable=True))

    async def look(self, id: UUID) -> EmailOut:
        async with self.engine.connect() as connection:
            found = await serializers.one(connection, await self.tenant_of(id), id)
        assert found is not None
        return found

    async def events(self, id: UUID) -> list[Event]:
        async with self.engine.connect() as connection:
            return await events(connection, await self.tenant_of(id), id) or []

    async def tenant_of(self, id: UUID) -> UUID:
        tenant: UUID = (await self.sql("SELECT tenant_id FROM emails WHERE id = :id", id=id))[0]["tenant_id"]
        return tenant

    async def sql(self, statement: str, **values: Any) -> list[Any]:
        async with self.engine.begin() as connection:
            found = await connection.execute(text(statement), values)
            return list(found.mappings()) if found.returns_rows else []

    @property
    def mails(self) -> list[EmailMessage]:
        return [email.message_from_bytes(mail.data, policy=default) for mail in self.sink.mails]


MakePost = Callable[..., AbstractAsyncContextManager[Post]]
