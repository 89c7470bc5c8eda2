"""Jobs over HTTP: asked for, looked at, listed, waited for, refused."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.service.activities.fake_llm import Model, reply
from tests.service.jobs.bench import REQUEST, MakeBench
from tests.service.jobs.conftest import Sql


async def ask(api: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    answer = await api.post("/v1/jobs", json={**REQUEST, **more})
    assert answer.status_code == 202, answer.text
    told: dict[str, Any] = answer.json()
    assert answer.headers["Location"] == f"/v1/jobs/{told['id']}"
    return told


async def read(api: httpx.AsyncClient, job: dict[str, Any]) -> dict[str, Any]:
    answer = await api.get(f"/v1/jobs/{job['id']}")
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def quota(api: httpx.AsyncClient) -> tuple[int, int]:
    found = (await api.get("/v1/organizations/acme/quotas")).json()
    return found["used"], found["reserved"]


async def test_what_is_told_at_acceptance_is_what_is_stored(api: httpx.AsyncClient, acme: str) -> None:
    told = await ask(api)
    assert (told["status"], told["priority"], told["attempts"], told["poll_after_ms"]) == ("pending", "normal", 0, 1000)
    assert told["id"] == "jb_" + told["task_id"].replace("-", "")
    assert await read(api, told) == told
    assert await quota(api) == (0, 1)


async def test_a_job_goes_from_pending_to_completed_and_takes_one_of_the_month(
    api: httpx.AsyncClient, acme: str, bench_of: MakeBench
) -> None:
    job = await ask(api)
    async with bench_of() as bench:
        await bench.work(job["task_id"])
    done = await read(api, job)
    assert (done["status"], done["attempts"], done["error"], done["poll_after_ms"]) == ("completed", 1, None, None)
    assert done["progress"] == {"done": 3, "total": 3, "note": "made offline"}
    assert (done["result"]["provider"], done["result"]["model"]) == ("offline", None)
    assert len({activity["title"] for activity in done["result"]["activities"]}) == 3
    assert await quota(api) == (1, 0)
    task = (await api.get(f"/v1/tasks/{job['task_id']}")).json()
    assert (task["status"], task["name"]) == ("SUCCESS", "activities.generate")


async def test_a_job_outlives_its_message(api: httpx.AsyncClient, acme: str, bench_of: MakeBench, sql: Sql) -> None:
    job = await ask(api)
    async with bench_of() as bench:
        await bench.work(job["task_id"])
    before = await read(api, job)
    await sql("DELETE FROM messages")
    assert await read(api, job) == {**before, "progress": None, "started_at": None}
    assert await quota(api) == (1, 0)


async def test_every_fault_of_a_request_is_named_at_once(api: httpx.AsyncClient) -> None:
    body = {
        "type": "activities.generate",
        "input": {"team_size": 1, "colour": "red"},
        "scheduled_at": "9999-01-01T00:00:00Z",
    }
    answer = await api.post("/v1/jobs", json=body)
    assert answer.status_code == 422
    pointers = {fault["pointer"] for fault in answer.json()["errors"]}
    assert pointers == {"/input/team_size", "/input/colour", "/organization_id", "/scheduled_at"}
    unknown = await api.post("/v1/jobs", json={"type": "tea.make", "organization_id": "acme"})
    assert "activities.generate" in unknown.json()["errors"][0]["message"]
    nobody = await api.post("/v1/jobs", json={**REQUEST, "organization_id": "nobody"})
    assert (nobody.status_code, nobody.json()["errors"][0]["pointer"]) == (422, "/organization_id")


@pytest.mark.parametrize("when", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-01-01T00:00:00"])
async def test_a_time_out_of_range_or_without_offset_is_refused(api: httpx.AsyncClient, acme: str, when: str) -> None:
    answer = await api.post("/v1/jobs", json={**REQUEST, "scheduled_at": when})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/scheduled_at"


@pytest.mark.parametrize(
    ("organization", "refused"),
    [
        ({"plan": "free", "trust_score": 80}, (403, "plan-required")),
        ({"plan": "team", "trust_score": 19}, (403, "trust-too-low")),
        ({"plan": "team", "trust_score": 80, "job_limit": 0}, (429, "quota-exceeded")),
    ],
)
async def test_plan_trust_and_quota_are_checked_before_anything_is_stored(
    api: httpx.AsyncClient, acme: str, sql: Sql, organization: dict[str, Any], refused: tuple[int, str]
) -> None:
    assert (await api.put("/v1/organizations/acme", json=organization)).status_code == 200
    answer = await api.post("/v1/jobs", json=REQUEST)
    assert (answer.status_code, answer.json()["code"]) == refused
    assert await sql("SELECT 1 FROM jobs") == []
    assert await sql("SELECT 1 FROM messages") == []
    assert await sql("SELECT 1 FROM quotas WHERE reserved > 0") == []
    if refused[0] == 429:
        resets_at = (await api.get("/v1/organizations/acme/quotas")).json()["resets_at"]
        assert resets_at in answer.json()["detail"]
        assert 0 < int(answer.headers["Retry-After"]) <= 31 * 86_400


async def test_a_type_whose_plan_was_taken_away_is_for_nobody(api: httpx.AsyncClient, acme: str, sql: Sql) -> None:
    assert (await api.put("/v1/organizations/acme", json={"plan": "business", "trust_score": 80})).status_code == 200
    await sql("DELETE FROM plans WHERE key = 'team'")
    answer = await api.post("/v1/jobs", json=REQUEST)
    assert (answer.status_code, answer.json()["code"]) == (403, "plan-required")


@pytest.mark.parametrize(
    ("plan", "asked_and_given"),
    [
        ("team", (None, "normal")),
        ("team", ("high", "normal")),
        ("team", ("low", "low")),
        ("business", ("high", "high")),
    ],
)
async def test_the_plan_caps_the_priority(
    api: httpx.AsyncClient, sql: Sql, acme: str, plan: str, asked_and_given: tuple[str | None, str]
) -> None:
    asked, given = asked_and_given
    assert (await api.put("/v1/organizations/acme", json={"plan": plan})).status_code == 200
    job = await ask(api, priority=asked)
    assert job["priority"] == given
    numbers = {"high": 3, "normal": 6, "low": 9}
    assert await sql("SELECT priority FROM messages") == [{"priority": numbers[given]}]


async def test_a_scheduled_job_waits_and_says_when_to_look(api: httpx.AsyncClient, acme: str, sql: Sql) -> None:
    [soon] = await sql("SELECT to_char(clock_timestamp() + interval '30 s', 'YYYY-MM-DD\"T\"HH24:MI:SSOF:00') AS at")
    job = await ask(api, scheduled_at=soon["at"])
    assert 20_000 < (await read(api, job))["poll_after_ms"] <= 30_000
    [row] = await sql("SELECT due_at > clock_timestamp() + interval '20 s' AS later FROM messages")
    assert row["later"]


async def test_the_same_key_is_one_job_and_one_reservation(api: httpx.AsyncClient, acme: str) -> None:
    headers = {"Idempotency-Key": "monday"}
    answers = [await api.post("/v1/jobs", json=REQUEST, headers=headers) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert answers[1].headers["Idempotency-Replayed"] == "true"
    assert await quota(api) == (0, 1)


async def test_an_unchanged_job_is_304_and_a_changed_one_is_not(
    api: httpx.AsyncClient, acme: str, bench_of: MakeBench
) -> None:
    job = await ask(api)
    path = f"/v1/jobs/{job['id']}"
    first = await api.get(path)
    tag = first.headers["ETag"]
    for known in (tag, tag.removeprefix("W/"), f'"other", {tag}', "*"):
        same = await api.get(path, headers={"If-None-Match": known})
        assert (same.status_code, same.content, same.headers["ETag"]) == (304, b"", tag)
    assert (await api.get(path, headers={"If-None-Match": '"other"'})).status_code == 200
    waiting = asyncio.create_task(api.get(path, headers={"If-None-Match": tag, "Prefer": "wait=50"}))
    async with bench_of() as bench:
        await bench.work(job["task_id"])
    changed = await waiting
    assert (changed.status_code, changed.headers["ETag"] != tag) == (200, True)


async def test_prefer_wait_holds_the_answer_until_the_job_has_ended(
    api: httpx.AsyncClient, acme: str, bench_of: MakeBench, sql: Sql
) -> None:
    asked = asyncio.create_task(api.post("/v1/jobs", json=REQUEST, headers={"Prefer": "wait=50"}))
    while not (found := await sql("SELECT id FROM messages")):  # noqa: ASYNC110 (Postgres need not tell)
        await asyncio.sleep(0.01)
    async with bench_of() as bench:
        await bench.work(str(found[0]["id"]))
    answer = await asked
    assert (answer.status_code, answer.json()["status"]) == (200, "completed")
    late = await api.post("/v1/jobs", json=REQUEST, headers={"Prefer": "wait=1"})
    assert (late.status_code, late.json()["status"]) == (202, "pending")


async def test_lists_go_by_pages_and_filters(api: httpx.AsyncClient, acme: str, bench_of: MakeBench) -> None:
    jobs = [await ask(api) for _ in range(3)]
    async with bench_of() as bench:
        await bench.work(jobs[0]["task_id"])
    first = (await api.get("/v1/jobs", params={"limit": 2})).json()
    assert [job["id"] for job in first["items"]] == [jobs[2]["id"], jobs[1]["id"]]
    second = (await api.get("/v1/jobs", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert ([job["id"] for job in second["items"]], second["next_cursor"]) == ([jobs[0]["id"]], None)
    done = (await api.get("/v1/jobs", params={"status": "completed", "organization_id": "acme"})).json()
    assert [job["id"] for job in done["items"]] == [jobs[0]["id"]]
    assert (await api.get("/v1/jobs", params={"type": "tea.make"})).json()["items"] == []
    assert (await api.get("/v1/jobs", params={"status": "done"})).status_code == 400
    tampered = await api.get("/v1/jobs", params={"status": "failed", "cursor": first["next_cursor"]})
    assert tampered.status_code == 400


async def test_another_tenant_sees_neither_job_nor_organization(
    api: httpx.AsyncClient, acme: str, make_key: Any
) -> None:
    job = await ask(api)
    other = {"Authorization": f"Bearer {await make_key(tenant='others')}"}
    for path in (f"/v1/jobs/{job['id']}", f"/v1/jobs/{job['id']}/stream", "/v1/organizations/acme/quotas"):
        assert (await api.get(path, headers=other)).status_code == 404
    for verb in ("cancel", "retry"):
        assert (await api.post(f"/v1/jobs/{job['id']}/{verb}", headers=other)).status_code == 404
    assert (await api.post("/v1/jobs", json=REQUEST, headers=other)).status_code == 422
    assert (await read(api, job))["status"] == "pending"


async def test_a_test_keys_job_pays_nothing_and_asks_no_model(
    api: httpx.AsyncClient, acme: str, make_key: Any, bench_of: MakeBench
) -> None:
    key = {"Authorization": f"Bearer {await make_key(mode='test')}"}
    assert (await api.post("/v1/jobs", json=REQUEST, headers=key)).status_code == 422, "acme is a live organization"
    await api.put("/v1/organizations/acme", json={"plan": "team", "trust_score": 80}, headers=key)
    answer = await api.post("/v1/jobs", json=REQUEST, headers=key)
    assert (answer.status_code, answer.json()["mode"]) == (202, "test")
    async with bench_of(LLM_BASE_URL="http://127.0.0.1:9/v1") as bench:
        await bench.work(answer.json()["task_id"])
    done = (await api.get(f"/v1/jobs/{answer.json()['id']}", headers=key)).json()
    assert (done["status"], done["result"]["provider"]) == ("completed", "offline")
    assert (await api.get("/v1/organizations/acme/quotas", headers=key)).json()["used"] == 0
    assert await quota(api) == (0, 0)


async def test_a_request_tells_its_job_from_the_call_to_the_end(
    api: httpx.AsyncClient, acme: str, bench_of: MakeBench
) -> None:
    asked = await api.post("/v1/jobs", json=REQUEST, headers={"X-Request-ID": "friday-7"})
    async with bench_of() as bench:
        await bench.work(asked.json()["task_id"])
    story = (await api.get("/v1/requests/friday-7")).json()
    told = [event["what"] for event in story["events"]]
    assert told[0] == "request_received"
    assert (told.count("job_accepted"), told.count("job_completed")) == (1, 1)
    assert "task_done" not in told, "each fact is told once"


async def test_a_request_tells_why_its_job_failed(api: httpx.AsyncClient, acme: str, bench_of: MakeBench) -> None:
    asked = await api.post("/v1/jobs", json=REQUEST, headers={"X-Request-ID": "friday-8"})
    async with Model(reply(401)) as model, bench_of(LLM_BASE_URL=model.url) as bench:
        await bench.work(asked.json()["task_id"])
    story = (await api.get("/v1/requests/friday-8")).json()
    [end] = [event for event in story["events"] if event["what"] == "job_failed"]
    assert (end["detail"]["attempt"], end["detail"]["code"]) == (1, "llm_refused")
    assert "LLM_API_KEY" in end["detail"]["error"]
