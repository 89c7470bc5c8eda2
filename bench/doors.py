"""The ways to accept a mail that ours is measured beside: BENCH_DOOR is bare, validated, orm or delay.

Each is served by one granian process, as `callboard api` is.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import UUID

import msgspec
from celery import Celery
from litestar import Litestar, post
from litestar.datastructures import State
from litestar.params import JSONBody
from sqlalchemy import Table, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import Mapped, mapped_column
from uuid_utils.compat import uuid7

from service.db import engine as db
from service.emails.schemas import EmailRequest
from service.settings import Settings

BARE = b'{"id":"em_0190a7a000007000800000000000000a","status":"queued"}'


class Mail(db.Base):
    """A mail as an application of the usual kind stores it."""

    __tablename__ = "bench_mails"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    status: Mapped[str] = mapped_column(Text, default="queued")
    body: Mapped[dict[str, Any]] = mapped_column(JSONB)


async def bare(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Read the body and answer: what the server and the protocol cost."""
    if scope["type"] == "lifespan":
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(BARE)).encode())]
    await send({"type": "http.response.start", "status": 202, "headers": headers})
    await send({"type": "http.response.body", "body": BARE})


@post("/v1/emails", status_code=202)
async def validated(data: JSONBody[EmailRequest]) -> dict[str, str]:
    """Decode and check the body, store nothing."""
    return {"id": str(uuid7()), "status": "queued"}


async def store(state: State, data: EmailRequest) -> Mail:
    """One session, one INSERT, one COMMIT for each request."""
    async with state.sessions() as session:
        mail = Mail(id=uuid7(), body=msgspec.to_builtins(data))
        session.add(mail)
        await session.commit()
        return mail


@post("/v1/emails", status_code=202)
async def orm(state: State, data: JSONBody[EmailRequest]) -> dict[str, str]:
    """Store the mail, tell nobody."""
    mail = await store(state, data)
    return {"id": str(mail.id), "status": mail.status}


@post("/v1/emails", status_code=202)
async def delay(state: State, data: JSONBody[EmailRequest]) -> dict[str, str]:
    """Store the mail, then `.delay()`: the usual way."""
    mail = await store(state, data)
    state.task.delay(str(mail.id))
    return {"id": str(mail.id), "status": mail.status}


def send_mail(mail_id: str) -> None:
    """Never runs here: a worker's business."""


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    """A pool of connections and a Celery client."""
    where, arguments = db.address(Settings.from_env().database_url)
    engine: AsyncEngine = create_async_engine(where, connect_args=arguments, pool_size=10, max_overflow=0)
    async with engine.begin() as connection:
        await connection.run_sync(db.Base.metadata.create_all, tables=[cast("Table", Mail.__table__)])
    app.state.sessions = db.sessions(engine)
    app.state.task = Celery("bench", broker=os.environ["REDIS_URL"]).task(name="send", ignore_result=True)(send_mail)
    yield
    await engine.dispose()


def make() -> Any:
    """The application that BENCH_DOOR names. For granian's factory."""
    door = os.environ["BENCH_DOOR"]
    if door == "bare":
        return bare
    handler = {"validated": validated, "orm": orm, "delay": delay}[door]
    hooks = [] if door == "validated" else [lifespan]
    return Litestar([handler], lifespan=hooks, openapi_config=None, logging_config=None)
