"""Clients of the service before this one go on: their routes, their shapes, their task names."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from callboard_workers.errors import DeclarationError
from callboard_workers.policy import DeadLetter, Done
from callboard_workers.testing import run_now
from service.activities.actors import generate_custom_activities
from service.activities.schemas import Activities
from service.jobs.types import job
from tests.journeys.house import house
from tests.service.activities.fake_llm import Model, reply
from tests.service.jobs.bench import MakeBench
from tests.service.jobs.conftest import Sql
from tests.service.jobs.test_api import ask, quota, read

CUSTOM = {"organization_id": "acme", "team_size": 6, "topic": "billing"}


async def test_the_old_routes_answer_in_their_old_shapes(
    api: httpx.AsyncClient, acme: str, bench_of: MakeBench
) -> None:
    answer = await api.post("/api/activities/generate-custom", json=CUSTOM)
    assert answer.status_code == 202
    told = answer.json()
    assert told == {"success": True, "job_id": told["job_id"], "status": "pending"}
    job = (await api.get(f"/v1/jobs/{told['job_id']}")).json()
    assert (job["type"], job["input"]["team_size"], job["organization_id"]) == ("activities.generate", 6, "acme")
    async with bench_of() as bench:
        await bench.work(job["task_id"])
    for spelling in (told["job_id"], job["task_id"]):
        polled = (await api.get(f"/api/jobs/{spelling}")).json()
        assert (polled["success"], polled["status"], len(polled["activities"])) == (True, "completed", 3)
    assert (await api.get("/api/jobs/unknown")).status_code == 404


async def test_the_old_call_with_team_and_requirements_is_served(
    api: httpx.AsyncClient, acme: str, bench_of: MakeBench
) -> None:
    body = {"team_id": "team-7", "organization_id": "acme", "requirements": "Focus on collaboration"}
    response = await api.post("/api/activities/generate-custom", json=body)
    assert response.status_code == 202, response.text
    job = (await api.get(f"/v1/jobs/{response.json()['job_id']}")).json()
    assert (job["input"]["team_id"], job["input"]["notes"]) == ("team-7", "Focus on collaboration")
    async with bench_of() as bench:
        rung = await run_now(generate_custom_activities, job["id"], "team-7", "acme")
        assert isinstance(rung, Done)
        unknown = await run_now(generate_custom_activities, "job-id", "team-id", "org-id")
        assert isinstance(unknown, DeadLetter)
        assert "POST /api/activities/generate-custom" in str(unknown)
        await bench.work(job["task_id"])
    polled = (await api.get(f"/api/jobs/{job['id']}")).json()
    assert (polled["status"], len(polled["activities"])) == ("completed", 3)


async def test_an_organization_has_one_grammar_of_ids_everywhere(api: httpx.AsyncClient) -> None:
    for id in ("acme@eu", "acme+eu|1~a=b", "a" * 128):
        plan = await api.put(f"/v1/organizations/{id}", json={"plan": "team"})
        members = await api.post(f"/v1/organizations/{id}/members", json={"users": ["ada"]})
        assert (plan.status_code, members.status_code) == (200, 200), (plan.text, members.text)


async def test_the_old_routes_refuse_and_fail_in_words(api: httpx.AsyncClient, acme: str, bench_of: MakeBench) -> None:
    wrong = await api.post("/api/activities/generate-custom", json={"team_size": 1})
    assert {fault["pointer"] for fault in wrong.json()["errors"]} == {"/organization_id", "/team_size"}
    twice = await api.post("/api/activities/generate-custom", json=CUSTOM | {"requirements": "a", "notes": "b"})
    assert (twice.status_code, twice.json()["errors"][0]["pointer"]) == (422, "/requirements")
    told = (await api.post("/api/activities/generate-custom", json=CUSTOM)).json()
    async with Model(reply(401)) as model, bench_of(LLM_BASE_URL=model.url) as bench:
        await bench.work((await api.get(f"/v1/jobs/{told['job_id']}")).json()["task_id"])
    polled = (await api.get(f"/api/jobs/{told['job_id']}")).json()
    assert (polled["success"], polled["status"], polled["activities"]) == (False, "failed", [])
    assert "LLM_API_KEY" in polled["error"]


async def test_the_old_task_rings_for_a_job_and_harms_nothing(
    api: httpx.AsyncClient, acme: str, bench_of: MakeBench
) -> None:
    asked = await ask(api)
    async with bench_of() as bench:
        told = await run_now(generate_custom_activities, asked["id"])
        assert isinstance(told, Done)
        assert told.result == {"job_id": asked["id"], "status": "pending"}
        assert [str(message.id) for message in bench.runtime.publisher.rung] == [asked["task_id"]]  # type: ignore[attr-defined]
        await bench.work(asked["task_id"])
        again = await run_now(generate_custom_activities, asked["task_id"])
        assert isinstance(again, Done)
        assert again.result == {"job_id": asked["task_id"], "status": "completed"}
        unknown = await run_now(generate_custom_activities, "jb_" + "0" * 32)
        assert isinstance(unknown, DeadLetter)
    assert await quota(api) == (1, 0)


STOCK = """
import sys
from celery import Celery
app = Celery(broker=sys.argv[1], backend=sys.argv[1])
app.send_task("generate_custom_activities_task", args=[sys.argv[2]])
print(app.send_task("reset_quotas_task").get(timeout=60))
print(app.send_task("activities.generate", args=[{"team_size": 4}], queue="jobs").get(timeout=60)["provider"])
"""


async def test_a_stock_celery_client_calls_the_old_names(  # noqa: PLR0917 (fixtures)
    api: httpx.AsyncClient, acme: str, sql: Sql, tmp_path: Path, database: str, redis_url: str
) -> None:
    asked = await ask(api)
    # Nobody rings for it but the client.
    await sql("UPDATE messages SET ring_at = clock_timestamp() + interval '1 hour'")
    async with house(tmp_path, database, redis_url, CELERY_RESULT_BACKEND=redis_url) as home:
        with redis.Redis.from_url(redis_url) as client:
            client.flushall()
        await home.start_worker()
        said = await _run(sys.executable, "-c", STOCK, redis_url, asked["id"])
        assert said.splitlines() == ["{'opened': 0, 'forgotten': 0}", "offline"]

        async def done() -> Any:
            return (await read(api, asked))["status"] == "completed"

        await home.eventually(done, "the job is done")
    assert await quota(api) == (1, 0)


async def _run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    said, wrong = await asyncio.wait_for(process.communicate(), 180)
    assert process.returncode == 0, wrong.decode()
    return said.decode()


def test_a_type_of_job_that_does_not_fit_is_refused_where_it_is_declared() -> None:
    def wrong(one: int, two: int) -> int:
        return one + two

    with pytest.raises(DeclarationError) as refused:
        job("wrong.job", input=int, result=Activities, trust=101, cost=-1)(wrong)  # type: ignore[arg-type,type-var]
    for fault in ("async def", "its input and nothing else", "input:", "trust:", "cost:"):
        assert fault in str(refused.value)
