"""Cancel, dead letters, requeue: within one tenant, and never twice."""

import asyncio
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from callboard_workers.message import Message
from service.tasks.repository import uuid_of
from tests.service.conftest import MakeKey
from tests.service.tasks.test_api import change, store
from tests.service.web.test_hostile import problem

RUNNING = "state='running', epoch=epoch+1, worker='w@1', lease_until=now()+interval '30 s', started_at=now()"


async def kill(engine: AsyncEngine, message: Message, kind: str = "Boom") -> None:
    await change(engine, message, RUNNING)
    error = f'{{"type": "{kind}", "message": "no"}}'
    await change(engine, message, f"state='dead', finished_at=now(), attempts=1, error='{error}'".replace(":", "\\:"))


async def state_of(engine: AsyncEngine, message: Message) -> Any:
    async with engine.connect() as connection:
        sql = text("SELECT state FROM messages WHERE id = :id")
        return (await connection.execute(sql, {"id": message.id})).scalar_one()


async def test_a_waiting_task_is_canceled_and_a_running_one_asked_to_stop(
    api: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    waiting, running, ended = [await store(engine) for _ in range(3)]
    await change(engine, running, RUNNING)
    await kill(engine, ended)
    assert (await api.post(f"/v1/tasks/{waiting.task_id}/cancel")).json()["canceled"] == "now"
    assert await state_of(engine, waiting) == "canceled"
    assert (await api.get(f"/v1/tasks/{waiting.task_id}")).json()["status"] == "REVOKED"
    assert (await api.post(f"/v1/tasks/{running.task_id}/cancel")).json()["canceled"] == "requested"
    assert problem(await api.post(f"/v1/tasks/{ended.task_id}/cancel"), 409)["code"] == "too-late"
    problem(await api.post(f"/v1/tasks/{uuid7()}/cancel"), 404)


async def test_another_tenant_cancels_and_requeues_nothing(
    api: httpx.AsyncClient, engine: AsyncEngine, make_key: MakeKey
) -> None:
    waiting, dead = await store(engine), await store(engine)
    await kill(engine, dead)
    other = {"Authorization": f"Bearer {await make_key(tenant='other')}"}
    problem(await api.post(f"/v1/tasks/{waiting.task_id}/cancel", headers=other), 404)
    assert (await api.get("/v1/dead-letters", headers=other)).json()["items"] == []
    told = (await api.post("/v1/dead-letters/requeue", json={"ids": [dead.task_id]}, headers=other)).json()
    assert told == {"requeued": [], "left": [dead.task_id]}
    assert await state_of(engine, dead) == "dead"


async def test_dead_letters_are_listed_newest_first_page_by_page(api: httpx.AsyncClient, engine: AsyncEngine) -> None:
    letters = [await store(engine) for _ in range(5)]
    for letter in letters:
        await kill(engine, letter)
    await store(engine)
    seen, cursor = [], None
    while True:
        params = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await api.get("/v1/dead-letters", params=params)).json()
        seen += [item["task_id"] for item in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen == [letter.task_id for letter in reversed(letters)]
    assert len((await api.get("/v1/dead-letters", params={"state": "held"})).json()["items"]) == 0
    assert len((await api.get("/v1/dead-letters", params={"actor": "emails.send_email"})).json()["items"]) == 5


@pytest.mark.parametrize("params", [{"state": "queued"}, {"state": ""}, {"actor": "\0"}, {"limit": "0"}])
async def test_a_wrong_question_is_400(api: httpx.AsyncClient, params: dict[str, str]) -> None:
    problem(await api.get("/v1/dead-letters", params=params), 400)


async def test_nothing_is_requeued_twice(api: httpx.AsyncClient, engine: AsyncEngine) -> None:
    letter = await store(engine)
    await kill(engine, letter)
    body = {"ids": [letter.task_id, letter.task_id, str(uuid7())]}
    answers = await asyncio.gather(*(api.post("/v1/dead-letters/requeue", json=body) for _ in range(8)))
    requeued = [id_ for answer in answers for id_ in answer.json()["requeued"]]
    assert requeued == [letter.task_id]
    assert await state_of(engine, letter) == "queued"
    history = (await api.get(f"/v1/tasks/{letter.task_id}")).json()["history"]
    assert [attempt["outcome"] for attempt in history] == ["requeued"]


async def test_requeue_by_error_takes_those_alone(api: httpx.AsyncClient, engine: AsyncEngine) -> None:
    one, two = await store(engine), await store(engine)
    await kill(engine, one, "Boom")
    await kill(engine, two, "Bang")
    told = (await api.post("/v1/dead-letters/requeue", json={"error": "Bang"})).json()
    assert told == {"requeued": [two.task_id], "left": []}
    assert await state_of(engine, one) == "dead"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [({}, ""), ({"ids": []}, "/ids"), ({"ids": ["x"]}, "/ids/0"), ({"ids": ["x"] * 1001}, "/ids"), ({"id": 1}, "/id")],
)
async def test_a_requeue_of_nothing_is_422(api: httpx.AsyncClient, body: dict[str, Any], pointer: str) -> None:
    told = problem(await api.post("/v1/dead-letters/requeue", json=body), 422)
    assert pointer in {fault["pointer"] for fault in told["errors"]}


async def test_operations_need_their_scope(api: httpx.AsyncClient, make_key: MakeKey) -> None:
    reader = {"Authorization": f"Bearer {await make_key('tasks:read')}"}
    problem(await api.post(f"/v1/tasks/{uuid7()}/cancel", headers=reader), 403)
    problem(await api.post("/v1/dead-letters/requeue", json={"error": "x"}, headers=reader), 403)


def test_an_id_is_read_in_its_one_spelling() -> None:
    id_ = uuid7()
    assert uuid_of(str(id_)) == id_


async def test_a_doubt_is_settled_once_and_its_history_says_who_said_so(
    api: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    doubted, dead, waiting = [await store(engine) for _ in range(3)]
    await change(engine, doubted, RUNNING)
    await change(engine, doubted, "state='uncertain', finished_at=now()")
    await kill(engine, dead)
    ids = [message.task_id for message in (doubted, dead, waiting)]
    body = {"ids": ids, "state": "dead", "reason": "Ada never got it"}
    told = (await api.post("/v1/dead-letters/resolve", json=body)).json()
    assert told == {"resolved": [doubted.task_id], "left": [dead.task_id, waiting.task_id]}
    assert (await api.post("/v1/dead-letters/resolve", json=body)).json()["resolved"] == []
    task = (await api.get(f"/v1/tasks/{doubted.task_id}")).json()
    assert task["state"] == "dead"
    assert task["history"][-1]["outcome"] == "resolved"
    assert task["history"][-1]["detail"]["reason"] == "Ada never got it"
    problem(await api.post("/v1/dead-letters/resolve", json={"ids": ids, "state": "queued"}), 422)
    problem(await api.post("/v1/dead-letters/resolve", json={"ids": ["x"], "state": "done"}), 422)
