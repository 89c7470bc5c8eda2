"""What fails of a Celery client is seen: in its result, by `callboard dead` and over HTTP, and can be queued again."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
import redis
import redis.asyncio
from celery import Celery
from celery.exceptions import TaskError

from callboard_workers.redis import address
from service.health.checks import DEAD
from service.settings import Settings
from service.tasks import buried
from tests.journeys.house import ROOT, House, house
from tests.service.conftest import MakeKey, client_of


async def command(made: House, *words: str) -> tuple[int, str]:
    """A command's exit code and output."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "service", *words],
        cwd=ROOT,
        env={**os.environ, **made.environ, "COLUMNS": "300"},
        capture_output=True,
        check=False,
    )
    return done.returncode, (done.stdout + done.stderr).decode()


async def test_a_task_by_a_name_that_nobody_knows_fails_for_its_caller_and_is_listed(
    tmp_path: Path, database: str, redis_url: str
) -> None:
    async with house(tmp_path, database, redis_url, CELERY_RESULT_BACKEND=redis_url) as made:
        await made.start_worker()
        with Celery("shop", broker=redis_url, backend=redis_url) as client:
            sent = client.send_task("send_email_task", ["ada@example.org"])
            with pytest.raises(TaskError, match="no task is named 'send_email_task'"):
                await asyncio.to_thread(sent.get, timeout=60)
        code, said = await command(made, "dead")
        assert code == 0
        assert f"{sent.id} dead send_email_task" in said
        assert "no task is named" in said
        code, said = await command(made, "requeue", sent.id)
        assert (code, f"{sent.id} queued again" in said) == (0, True), said

        async def listed() -> bool:
            return sent.id in (await command(made, "dead"))[1]

        await made.eventually(listed, "it has failed again")
        assert await command(made, "resolve", sent.id, "--as", "done") == (0, f"{sent.id} done\n")
        assert "Nothing waits for a person." in (await command(made, "dead"))[1]
        assert (await command(made, "requeue", sent.id))[0] == 1


def entry(id: str, reason: str = "broken", task: str = "shop.task") -> bytes:
    """An entry as workers write it."""
    envelope = msgspec.json.encode({"headers": {"id": id, "task": task}, "body": ""})
    return msgspec.msgpack.encode({"reason": reason, "at": 1.0, "key": "celery", "envelope": envelope})


async def test_an_operators_key_lists_them_page_by_page_and_a_tenants_does_not(
    settings: Settings, redis_url: str, make_key: MakeKey
) -> None:
    ids = [f"00000000-0000-4000-8000-00000000000{number}" for number in range(5)]
    with redis.Redis.from_url(redis_url) as server:
        server.lpush(DEAD, *map(entry, ids), entry("not a uuid"), msgspec.msgpack.encode({
            "reason": "not JSON", "at": 1.0, "key": "celery", "envelope": b"\xff",
        }))  # fmt: skip
    async with client_of(settings) as client:
        found: list[str] = []
        cursor = None
        client.headers["Authorization"] = f"Bearer {await make_key('*', 'operator')}"
        while cursor or not found:
            page = (
                await client.get("/v1/dead-letters", params={"limit": 3} | ({"cursor": cursor} if cursor else {}))
            ).json()
            found += [each["task_id"] for each in page["items"]]
            cursor = page["next_cursor"]
        assert len(found) == len(set(found)) == 7
        assert set(ids) < set(found)
        client.headers["Authorization"] = f"Bearer {await make_key('*')}"
        assert (await client.get("/v1/dead-letters")).json()["items"] == []


async def test_an_entry_is_queued_again_once(redis_url: str) -> None:
    client = address.async_client(redis_url)
    await client.lpush(DEAD, entry("00000000-0000-4000-8000-000000000001"))  # type: ignore[misc]
    [kept] = await buried.read(client)
    both = await asyncio.gather(*(buried.requeue(client, [kept.report.id]) for _ in range(2)))
    assert sorted(map(len, both)) == [0, 1]
    assert await client.llen("celery") == 1  # type: ignore[misc]
    await client.aclose()


class Failing(redis.asyncio.Redis):
    """A connection to a server where each task that is requeued fails again at once."""

    async def eval(self, script: str, numkeys: int, *arguments: Any) -> Any:
        done = await super().eval(script, numkeys, *arguments)  # type: ignore[misc]
        envelope = await self.rpop("celery")  # type: ignore[misc]
        again = {"reason": "broken", "at": 2.0, "key": "celery", "envelope": envelope}
        await self.lpush(DEAD, msgspec.msgpack.encode(again))  # type: ignore[misc]
        return done


async def test_what_fails_again_while_others_are_requeued_is_requeued_and_counted_once(redis_url: str) -> None:
    client = Failing.from_url(redis_url)
    ids = [UUID(int=number) for number in range(1, 8)]
    await client.lpush(DEAD, *(entry(str(id)) for id in ids), entry(str(ids[0]), "its twin"))  # type: ignore[misc]
    moved = await buried.requeue(client, ids)
    assert sorted(moved) == [ids[0], *ids], "an id that is there twice counts twice"
    assert await client.llen(DEAD) == 8  # type: ignore[misc]
    assert {each.report.created_at.timestamp() for each in await buried.read(client)} == {2.0}
    await client.aclose()
