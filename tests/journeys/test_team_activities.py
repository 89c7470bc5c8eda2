"""A team lead asks for activities: the app checks plan, trust and quota, queues, polls, and counts what succeeded."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.journeys.house import House, house
from tests.service.activities.fake_llm import GOOD, SHORT, Model, after, reply, say, silence

WISH = {"team_size": 8, "topic": "our launch", "duration_minutes": 30, "setting": "remote", "goals": ["trust"]}

# What the passing of thirty seconds does to a worker that is dead.
LAPSE = text("UPDATE messages SET lease_until = clock_timestamp() - interval '1 s' WHERE state = 'running'")


class App:
    """The app that team leads use: it knows the API's address and its key, and nothing else."""

    def __init__(self, house: House, client: httpx.AsyncClient) -> None:
        self.house, self.client = house, client

    async def organization(self, id: str, plan: str, **more: Any) -> None:
        answer = await self.client.put(f"/v1/organizations/{id}", json={"plan": plan, "trust_score": 80, **more})
        assert answer.status_code == 200, answer.text

    async def generate(self, organization: str, **more: Any) -> httpx.Response:
        body = {"type": "activities.generate", "input": WISH, "organization_id": organization, **more}
        return await self.client.post("/v1/jobs", json=body)

    async def accepted(self, organization: str, **more: Any) -> dict[str, Any]:
        answer = await self.generate(organization, **more)
        assert answer.status_code == 202, answer.text
        told: dict[str, Any] = answer.json()
        return told

    async def until(self, job: dict[str, Any], *statuses: str, timeout: float = 60.0) -> dict[str, Any]:
        """Polls a job until it has one of these statuses, as the app would."""

        async def there() -> Any:
            answer = await self.client.get(f"/v1/jobs/{job['id']}")
            assert answer.status_code == 200, answer.text
            return answer.json() if answer.json()["status"] in statuses else None

        found: dict[str, Any] = await self.house.eventually(there, f"{job['id']} is {statuses}", timeout)
        return found

    async def quota(self, organization: str) -> tuple[int, int]:
        found = (await self.client.get(f"/v1/organizations/{organization}/quotas")).json()
        return found["used"], found["reserved"]


@pytest.fixture
async def model() -> AsyncIterator[Model]:
    async with Model() as found:
        yield found


@pytest.fixture
async def app(tmp_path: Path, database: str, redis_url: str, model: Model) -> AsyncIterator[App]:
    where = {"LLM_BASE_URL": model.url, "LLM_MODEL": "planner", "LLM_TIMEOUT": "20"}
    async with house(tmp_path, database, redis_url, **where) as home:
        key = await home.key("teams")
        await home.start_api()
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=home.url, headers=headers, timeout=60) as client:
            found = App(home, client)
            await found.organization("acme", "team", job_limit=5)
            yield found


async def test_a_lead_asks_and_gets_three_activities_which_costs_one_of_the_month(app: App, model: Model) -> None:
    model.script = [reply(429, Retry_After="1"), say(SHORT), say(GOOD)]
    job = await app.accepted("acme")
    assert (job["status"], await app.quota("acme")) == ("pending", (0, 1))
    await app.house.start_worker()
    done = await app.until(job, "completed")
    assert done["result"] == {"provider": "llm", "model": "planner", **GOOD}
    assert (done["attempts"], await app.quota("acme")) == (2, (1, 0))
    assert len(model.asked) == 3, "a refusal to wait for, an answer to repair, an answer"
    story = (await app.client.get(f"/v1/requests/{job['request_id']}")).json()
    told = [event["what"] for event in story["events"]]
    assert told[0] == "request_received"
    assert {"job_accepted", "job_completed"} <= set(told)
    old = (await app.client.get(f"/api/jobs/{job['id']}")).json()
    assert (old["success"], old["status"], old["activities"]) == (True, "completed", GOOD["activities"])


async def test_who_may_not_is_told_why_before_any_work(app: App, model: Model) -> None:
    await app.organization("small", "free")
    await app.organization("new", "team", trust_score=5)
    await app.organization("done", "team", job_limit=0)
    refusals = {organization: await app.generate(organization) for organization in ("small", "new", "done")}
    assert {name: (answer.status_code, answer.json()["code"]) for name, answer in refusals.items()} == {
        "small": (403, "plan-required"),
        "new": (403, "trust-too-low"),
        "done": (429, "quota-exceeded"),
    }
    assert "begins anew at" in refusals["done"].json()["detail"]
    assert (await app.client.get("/v1/jobs")).json()["items"] == []
    assert model.asked == []


async def test_the_paying_go_first(app: App, model: Model) -> None:
    """On Redis 0 is the most urgent number; names cannot be the wrong way round."""
    await app.organization("rich", "business")
    patient = [await app.accepted("acme") for _ in range(3)]
    paying = await app.accepted("rich", priority="high")
    assert [job["priority"] for job in (*patient, paying)] == ["normal"] * 3 + ["high"]
    await app.house.start_worker("worker", "-c", "1")
    ended = [await app.until(job, "completed") for job in (*patient, paying)]
    assert min(ended, key=lambda job: job["started_at"])["id"] == paying["id"]


async def test_a_failure_says_why_and_costs_nothing_and_may_be_tried_again(app: App, model: Model) -> None:
    model.script = [reply(400, '{"error": "no such model"}')]
    await app.house.start_worker()
    failed = await app.until(await app.accepted("acme"), "failed")
    assert (failed["error"]["code"], failed["result"]) == ("llm_refused", None)
    assert await app.quota("acme") == (0, 0)
    assert (await app.client.post(f"/v1/jobs/{failed['id']}/retry")).status_code == 202
    done = await app.until(failed, "completed")
    assert (done["error"], await app.quota("acme")) == (None, (1, 0))


async def test_a_worker_killed_in_the_middle_loses_no_job_and_no_job_is_paid_twice(
    app: App, model: Model, engine: AsyncEngine
) -> None:
    model.script = [silence, silence]
    await app.house.start_worker("doomed")
    jobs = [await app.accepted("acme") for _ in range(2)]
    await model.until(2, 60)
    app.house.kill("doomed")
    assert await app.quota("acme") == (0, 2)
    async with engine.begin() as connection:
        await connection.execute(LAPSE)
    await app.house.start_worker("heir")
    for job in jobs:
        assert (await app.until(job, "completed"))["attempts"] == 1
    assert await app.quota("acme") == (2, 0)


async def test_a_lead_changes_her_mind_while_the_model_thinks(app: App, model: Model) -> None:
    model.script = [silence]
    await app.house.start_worker()
    job = await app.accepted("acme")
    await model.until(1, 60)
    answer = await app.client.post(f"/v1/jobs/{job['id']}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (202, "processing")
    await app.until(job, "canceled")
    assert await app.quota("acme") == (0, 0)


async def test_the_broker_is_down_and_the_job_is_accepted_and_done_when_it_is_back(
    tmp_path: Path, database: str, redis_url: str, stack: Any, model: Model
) -> None:
    async with house(tmp_path, database, redis_url, LLM_BASE_URL=model.url) as home:
        key = await home.key("teams")
        await home.start_api()
        async with httpx.AsyncClient(
            base_url=home.url, headers={"Authorization": f"Bearer {key}"}, timeout=60
        ) as client:
            app = App(home, client)
            await app.organization("acme", "team")
            stack.valkey.kill()
            try:
                job = await app.accepted("acme")
                assert (job["status"], await app.quota("acme")) == ("pending", (0, 1))
            finally:
                stack.valkey.start()
            with redis.Redis.from_url(redis_url) as broker:
                broker.flushall()
            await home.start_worker()
            await app.until(job, "completed")
            assert await app.quota("acme") == (1, 0)


async def test_a_page_follows_the_job_and_the_api_still_stops_at_once(app: App, model: Model) -> None:
    ready = asyncio.Event()
    model.script = [after(ready, say(GOOD))]
    await app.house.start_worker()
    job = await app.accepted("acme")
    seen: list[str] = []
    async with app.client.stream("GET", f"/v1/jobs/{job['id']}/stream") as stream:
        async for line in stream.aiter_lines():
            if line.startswith("data: "):
                seen.append(json.loads(line[6:])["status"])
                if seen[-1] == "processing":
                    ready.set()
    assert list(dict.fromkeys(seen))[-1] == "completed"
    model.script = [silence]
    waiting = await app.accepted("acme")
    processing = asyncio.Event()

    async def follow() -> None:
        async with app.client.stream("GET", f"/v1/jobs/{waiting['id']}/stream") as stream:
            async for line in stream.aiter_lines():
                if line == "event: processing":
                    processing.set()

    following = asyncio.create_task(follow())
    async with asyncio.timeout(60):
        await processing.wait()
    assert await asyncio.to_thread(app.house.stop, "api") == 0
    await following  # the stream was ended, not torn
    assert "refused to gracefully stop" not in app.house.log("api")


async def test_without_a_model_an_honest_offline_answer(tmp_path: Path, database: str, redis_url: str) -> None:
    async with house(tmp_path, database, redis_url, LLM_BASE_URL="") as home:
        key = await home.key("teams")
        await home.start_api()
        await home.start_worker()
        async with httpx.AsyncClient(
            base_url=home.url, headers={"Authorization": f"Bearer {key}"}, timeout=60
        ) as client:
            app = App(home, client)
            await app.organization("acme", "team")
            body = {"organization_id": "acme", **WISH}
            told = (await client.post("/api/activities/generate-custom", json=body)).json()
            done = await app.until({"id": told["job_id"]}, "completed")
            assert (done["result"]["provider"], len(done["result"]["activities"])) == ("offline", 3)
