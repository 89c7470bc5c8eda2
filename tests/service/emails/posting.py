"""Helpers for the tests of the emails API: send, run the worker's part, make things due."""

import dataclasses
from typing import Any
from uuid import UUID

import httpx
from sqlalchemy import text

from callboard_workers.execution.attempt import execute
from callboard_workers.message import Delivery
from callboard_workers.policy import Outcome
from callboard_workers.runtime import Runtime
from service.db import engine as db
from service.settings import Settings
from tests.service.conftest import working

HELLO = {"to": "Ada <ada@example.org>", "subject": "Hello", "text": "Good morning."}


async def post(api: httpx.AsyncClient, headers: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    """Send a mail, HELLO unless `fields` say otherwise; it must be accepted."""
    answer = await api.post("/v1/emails", json={**HELLO, **fields}, headers=headers)
    assert answer.status_code == 202, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def look(api: httpx.AsyncClient, mail: dict[str, Any]) -> dict[str, Any]:
    answer = await api.get(f"/v1/emails/{mail['id']}")
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def happened(api: httpx.AsyncClient, mail: dict[str, Any]) -> list[dict[str, Any]]:
    answer = await api.get(f"/v1/emails/{mail['id']}/events")
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def work(mail: dict[str, Any]) -> Outcome:
    """Answer the mail's doorbell once, as a worker would."""
    doorbell = Delivery(id=UUID(mail["task_id"]), actor="emails.send_email", durable=True)
    async with working(Runtime.of_loop()) as runtime:
        return await execute(runtime, doorbell)


async def execute_sql(sql: str, **values: Any) -> Any:
    engine = db.create_engine(Runtime.of_loop().state["settings"])  # sees every tenant's rows
    try:
        async with engine.begin() as connection:
            found = await connection.execute(text(sql), values)
            return found.mappings().all() if found.returns_rows else None
    finally:
        await engine.dispose()


def mailing_to(mailbox: Any, settings: Settings) -> Settings:
    """These settings, with mail that goes to a server of the test."""
    return dataclasses.replace(
        settings, smtp_host=mailbox.host, smtp_port=mailbox.port, mail_from="Callboard <mail@callboard.example>"
    )
