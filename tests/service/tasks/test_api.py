"""What became of a task and of a request, told from real ledger rows."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from callboard_workers.ledger import Ledger
from callboard_workers.ledger.schema import State
from callboard_workers.message import Message
from service.tasks.celery_states import status
from tests.service.conftest import MakeKey
from tests.service.web.test_hostile import problem


async def tenant_of(engine: AsyncEngine) -> UUID:
    async with engine.connect() as connection:
        return UUID(str((await connection.execute(text("SELECT id FROM tenants WHERE name = 'tests'"))).scalar_one()))


async def store(engine: AsyncEngine, request_id: str = "r-1", **more: Any) -> Message:
    headers = {"request_id": request_id, "route": "POST /v1/emails", "received_at": datetime.now(UTC).isoformat()}
    message = Message(actor="emails.send_email", tenant_id=await tenant_of(engine), headers=headers, **more)
    async with engine.begin() as connection:
        await Ledger(engine).insert(connection, [message])
    return message


async def change(engine: AsyncEngine, message: Message, sql: str) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(f"UPDATE messages SET {sql} WHERE id = :id"), {"id": message.id})


async def run_and_fail(engine: AsyncEngine, message: Message) -> None:
    await change(
        engine,
        message,
        "state='running', epoch=epoch+1, worker='w@1', lease_until=now()+interval '30 s', started_at=clock_timestamp()",
    )
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO message_attempts (message_id, epoch, outcome, started_at, worker, detail)"
                " SELECT id, epoch, 'retry', started_at, worker, '{\"code\": 451}' FROM messages WHERE id = :id"
            ),
            {"id": message.id},
        )
    await change(engine, message, "state='queued', attempts=attempts+1, error='{\"message\": \"451 later\"}'")


async def test_a_task_is_told_in_celerys_words(api: httpx.AsyncClient, engine: AsyncEngine) -> None:
    message = await store(engine)
    told = (await api.get(f"/v1/tasks/{message.task_id}")).json()
    assert (told["task_id"], told["name"], told["status"], told["attempts"], told["history"]) == (
        message.task_id,
        "emails.send_email",
        "PENDING",
        0,
        [],
    )
    await run_and_fail(engine, message)
    told = (await api.get(f"/v1/tasks/{message.task_id}")).json()
    assert (told["status"], told["attempts"], told["error"]["message"]) == ("RETRY", 1, "451 later")
    assert told["history"][0]["outcome"] == "retry"
    assert told["created_at"].endswith("Z")


@pytest.mark.parametrize(
    "task_id",
    ["1", "x" * 300, "../../etc", "0199f6d6-c3a1-712f-a0d5-f1f0a9c1e7b2", "{0199f6d6c3a1712fa0d5f1f0a9c1e7b2}"],
)
async def test_an_unknown_task_is_404_and_never_pending(api: httpx.AsyncClient, task_id: str) -> None:
    problem(await api.get(f"/v1/tasks/{task_id}"), 404)


async def test_another_tenants_task_and_request_are_404(
    api: httpx.AsyncClient, engine: AsyncEngine, make_key: MakeKey
) -> None:
    message = await store(engine)
    other = {"Authorization": f"Bearer {await make_key(tenant='other')}"}
    problem(await api.get(f"/v1/tasks/{message.task_id}", headers=other), 404)
    problem(await api.get("/v1/requests/r-1", headers=other), 404)
    assert (await api.get("/v1/requests/r-1")).status_code == 200


async def test_a_request_is_told_in_order_with_durations(api: httpx.AsyncClient, engine: AsyncEngine) -> None:
    message = await store(engine)
    await run_and_fail(engine, message)
    await run_and_fail(engine, message)
    await change(
        engine,
        message,
        "state='running', epoch=epoch+1, worker='w@2', lease_until=now()+interval '30 s', started_at=clock_timestamp()",
    )
    await change(
        engine, message, "state='done', finished_at=clock_timestamp(), outcome='{\"reply\": \"250 ok\"}', error=NULL"
    )
    told = (await api.get("/v1/requests/r-1")).json()
    assert [event["what"] for event in told["events"]] == [
        "request_received",
        "task_queued",
        "attempt_started",
        "attempt_retry",
        "attempt_started",
        "attempt_retry",
        "attempt_started",
        "task_done",
    ]
    offsets = [event["offset_ms"] for event in told["events"]]
    assert offsets == sorted(offsets)
    assert offsets[0] == 0
    assert told["duration_ms"] == offsets[-1]
    assert told["events"][0]["detail"] == {"route": "POST /v1/emails"}
    assert told["events"][-1]["detail"]["outcome"] == {"reply": "250 ok"}
    assert told["complete"] is True
    assert told["tasks"][0]["status"] == "SUCCESS"


@pytest.mark.parametrize("request_id", ["nobody", "x" * 65, "a%20b", "%00"])
async def test_a_request_nobody_knows_is_404(api: httpx.AsyncClient, request_id: str) -> None:
    problem(await api.get(f"/v1/requests/{request_id}"), 404)


async def test_a_long_story_is_cut_and_says_so(api: httpx.AsyncClient, engine: AsyncEngine) -> None:
    tenant = await tenant_of(engine)
    messages = [Message(actor="a.b", tenant_id=tenant, headers={"request_id": "big"}) for _ in range(501)]
    async with engine.begin() as connection:
        await Ledger(engine).insert(connection, messages)
    told = (await api.get("/v1/requests/big")).json()
    assert (told["complete"], len(told["tasks"])) == (False, 500)


async def test_reading_needs_its_scope(api: httpx.AsyncClient, make_key: MakeKey) -> None:
    headers = {"Authorization": f"Bearer {await make_key('emails:send')}"}
    problem(await api.get(f"/v1/tasks/{uuid7()}", headers=headers), 403)


def test_every_state_of_the_ledger_has_a_word() -> None:
    assert {state: status(state, 0, 0) for state in State} == {
        State.QUEUED: "PENDING",
        State.RUNNING: "STARTED",
        State.DONE: "SUCCESS",
        State.DEAD: "FAILURE",
        State.UNCERTAIN: "FAILURE",
        State.HELD: "FAILURE",
        State.CANCELED: "REVOKED",
        State.EXPIRED: "REVOKED",
    }
    assert status(State.QUEUED, 1, 0) == status(State.QUEUED, 0, 1) == "RETRY"
