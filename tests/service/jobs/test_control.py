"""A job is canceled, tried again and followed; streams end with the job, the caller or the process."""

import asyncio
import contextlib
import dataclasses
import json
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest
import structlog

from callboard_workers.policy import Canceled
from callboard_workers.runtime import Runtime
from service.core.errors import TooManyRequests
from service.jobs.schemas import JobOut
from service.jobs.stream import MOST, Streams, follow
from service.settings import Settings
from tests.service.activities.fake_llm import GOOD, Model, after, reply, say, silence
from tests.service.conftest import client_of
from tests.service.feeds.listening import every_connection, listen, state_of, until_logged
from tests.service.jobs.bench import REQUEST, MakeBench
from tests.service.jobs.conftest import Sql
from tests.service.jobs.test_api import ask, quota, read


async def cancel(api: httpx.AsyncClient, job: dict[str, Any]) -> httpx.Response:
    return await api.post(f"/v1/jobs/{job['id']}/cancel")


async def retry(api: httpx.AsyncClient, job: dict[str, Any]) -> httpx.Response:
    return await api.post(f"/v1/jobs/{job['id']}/retry")


async def test_a_pending_job_is_canceled_at_once_and_pays_nothing(
    api: httpx.AsyncClient, acme: str, bench_of: MakeBench
) -> None:
    job = await ask(api)
    for _ in range(2):
        answer = await cancel(api, job)
        assert (answer.status_code, answer.json()["status"]) == (200, "canceled")
    assert await quota(api) == (0, 0)
    async with bench_of() as bench:
        await bench.work(job["task_id"])
    assert (await read(api, job))["status"] == "canceled"
    refused = await retry(api, job)
    assert (refused.status_code, refused.json()["code"]) == (409, "not-retryable")


async def test_a_job_under_way_is_stopped_and_pays_nothing(
    api: httpx.AsyncClient, acme: str, bench_of: MakeBench
) -> None:
    job = await ask(api)
    async with Model(silence) as model, bench_of(LLM_BASE_URL=model.url) as bench:
        attempt = asyncio.create_task(bench.work(job["task_id"]))
        await model.until(1)
        answer = await cancel(api, job)
        assert (answer.status_code, answer.json()["status"]) == (202, "processing")
        await bench.runtime._keeper.renew()
        assert isinstance(await attempt, Canceled)
    assert ((await read(api, job))["status"], await quota(api)) == ("canceled", (0, 0))


async def test_a_job_that_has_ended_is_not_canceled(api: httpx.AsyncClient, acme: str, bench_of: MakeBench) -> None:
    job = await ask(api)
    async with bench_of() as bench:
        await bench.work(job["task_id"])
    answer = await cancel(api, job)
    assert (answer.status_code, answer.json()["code"]) == (409, "not-cancelable")
    assert await quota(api) == (1, 0)


async def test_a_failed_job_is_tried_again_under_its_id(api: httpx.AsyncClient, acme: str, bench_of: MakeBench) -> None:
    job = await ask(api)
    async with Model(reply(400)) as model, bench_of(LLM_BASE_URL=model.url) as bench:
        await bench.work(job["task_id"])
        assert ((await read(api, job))["status"], await quota(api)) == ("failed", (0, 0))
        answer = await retry(api, job)
        assert (answer.status_code, answer.json()["status"]) == (202, "pending")
        assert answer.headers["Location"] == f"/v1/jobs/{job['id']}"
        assert await quota(api) == (0, 1)
        assert (await retry(api, job)).status_code == 409
        await bench.work(job["task_id"])
    assert ((await read(api, job))["status"], await quota(api)) == ("completed", (1, 0))


async def test_of_many_retries_at_once_one_takes(api: httpx.AsyncClient, acme: str, bench_of: MakeBench) -> None:
    job = await ask(api)
    async with Model(reply(400)) as model, bench_of(LLM_BASE_URL=model.url) as bench:
        await bench.work(job["task_id"])
    answers = await asyncio.gather(*(retry(api, job) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 7
    assert await quota(api) == (0, 1)


async def test_retries_do_not_pass_the_limit(api: httpx.AsyncClient, acme: str, bench_of: MakeBench) -> None:
    assert (await api.put("/v1/organizations/acme", json={"plan": "team", "job_limit": 3})).status_code == 200
    jobs = [await ask(api) for _ in range(3)]
    async with Model(otherwise=reply(400)) as model, bench_of(LLM_BASE_URL=model.url) as bench:
        for job in jobs:
            await bench.work(job["task_id"])
    others = [await ask(api) for _ in range(2)]
    answers = await asyncio.gather(*(retry(api, job) for job in jobs))
    assert sorted(answer.status_code for answer in answers) == [202, 429, 429]
    assert await quota(api) == (0, 3)
    assert len(others) == 2
    demoted = await api.put("/v1/organizations/acme", json={"plan": "free"})
    assert demoted.status_code == 200
    refused = next(job for job, answer in zip(jobs, answers, strict=True) if answer.status_code == 429)
    assert (await retry(api, refused)).json()["code"] == "plan-required"


async def test_an_operators_requeue_reserves_again(api: httpx.AsyncClient, acme: str, bench_of: MakeBench) -> None:
    job = await ask(api)
    async with Model(reply(400)) as model, bench_of(LLM_BASE_URL=model.url) as bench:
        await bench.work(job["task_id"])
        answer = await api.post("/v1/dead-letters/requeue", json={"ids": [job["task_id"]]})
        assert answer.json()["requeued"] == [job["task_id"]]
        assert ((await read(api, job))["status"], await quota(api)) == ("pending", (0, 1))


def events(text: str) -> list[tuple[str, str, dict[str, Any]]]:
    found: list[tuple[str, str, dict[str, Any]]] = []
    for block in filter(None, text.split("\n\n")):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        if "data" in fields:
            found.append((fields["event"], fields["id"], json.loads(fields["data"])))
    return found


async def test_a_stream_tells_each_change_and_ends_with_the_job(
    api: httpx.AsyncClient, acme: str, bench_of: MakeBench
) -> None:
    job = await ask(api)
    ready = asyncio.Event()
    async with (
        Model(after(ready, say(GOOD))) as model,
        bench_of(LLM_BASE_URL=model.url) as bench,
        listen(api, f"/v1/jobs/{job['id']}/stream") as following,
    ):
        told = [await following.next("pending")]
        attempt = asyncio.create_task(bench.work(job["task_id"]))
        while not (told[-1].data["progress"] or {}).get("note", "").startswith("asking "):
            told.append(await following.next("processing"))
        ready.set()
        await attempt
        told.append(await following.next("completed"))
        async with asyncio.timeout(30):
            await following.over.wait()
    assert following.headers["content-type"].startswith("text/event-stream")
    assert following.headers["cache-control"] == "no-store"
    assert told[-1].data == await read(api, job)
    assert len({one.id for one in told}) == len(told), "nothing is told twice"
    again = await api.get(f"/v1/jobs/{job['id']}/stream", headers={"Last-Event-ID": str(told[-1].id)})
    assert again.text == ""
    late = await api.get(f"/v1/jobs/{job['id']}/stream", headers={"Last-Event-ID": str(told[0].id)})
    assert [name for name, _, _ in events(late.text)] == ["completed"]


async def test_a_stream_ends_when_the_process_stops(api: httpx.AsyncClient, acme: str, settings: Settings) -> None:
    job = await ask(api)
    async with client_of(settings) as other:
        other.headers.update(api.headers)
        stream = listen(other, f"/v1/jobs/{job['id']}/stream")
        following = await stream.__aenter__()
        await following.next("pending")
        assert not following.over.is_set()
    assert following.over.is_set()
    await stream.__aexit__(None, None, None)


async def test_a_stream_outlives_a_while_without_a_connection_to_postgres(
    api: httpx.AsyncClient, acme: str, settings: Settings
) -> None:
    job = await ask(api)
    few = dataclasses.replace(settings, db_pool_size=2, db_pool_timeout=0.1)
    async with client_of(few) as other:
        other.headers.update(api.headers)
        async with listen(other, f"/v1/jobs/{job['id']}/stream") as following:
            await following.next("pending")
            with structlog.testing.capture_logs() as logs:
                async with every_connection(few, state_of(other).engine):
                    await until_logged(logs, "job_away")
            assert (await cancel(api, job)).status_code == 200
            await following.next("canceled")


async def test_the_line_is_kept_open_by_the_clock_however_long_a_look_takes(
    api: httpx.AsyncClient, acme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.jobs.stream.QUIET", 0.4)
    job = msgspec.convert(await read(api, await ask(api)), JobOut, strict=False)
    looks = 0

    async def look() -> JobOut:
        nonlocal looks
        looks += 1
        await asyncio.sleep(0.5)
        return job

    stream = follow(Runtime.of_loop(), Streams(), uuid4(), look, "")
    async with contextlib.aclosing(stream):
        assert (await anext(stream)).startswith(b"event: pending\n")
        assert (await anext(stream), looks) == (b": nothing new\n\n", 2)


async def test_a_tenant_may_not_open_streams_without_end(api: httpx.AsyncClient, acme: str) -> None:
    streams, tenant = Streams(), uuid4()
    held = [streams.one(tenant) for _ in range(MOST)]
    for one in held:
        one.__enter__()
    with pytest.raises(TooManyRequests):
        streams.check(tenant)
    streams.check(uuid4())
    held[0].__exit__(None, None, None)
    streams.check(tenant)
    for one in held[1:]:
        one.__exit__(None, None, None)
    assert streams._open == {}


async def test_redis_down_refuses_no_job(api: httpx.AsyncClient, settings: Settings, acme: str, sql: Sql) -> None:
    async with client_of(dataclasses.replace(settings, redis_url="redis://127.0.0.1:9/0")) as client:
        answer = await client.post("/v1/jobs", json=REQUEST, headers=dict(api.headers))
    assert answer.status_code == 202
    assert await sql("SELECT state FROM messages") == [{"state": "queued"}]
