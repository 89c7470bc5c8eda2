"""A quota is reserved, committed and given back exactly once: under races, crashes, retries and at a month's turn."""

import asyncio
import dataclasses
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.policy import Done
from callboard_workers.testing import run_now, workbench
from service.jobs.actors import reset_quotas
from service.settings import Settings
from tests.service.activities.fake_llm import Model, reply, silence
from tests.service.conftest import client_of
from tests.service.jobs.bench import REQUEST, MakeBench
from tests.service.jobs.conftest import Sql
from tests.service.jobs.test_api import ask, quota, read

LAPSE = "UPDATE messages SET lease_until = clock_timestamp() - interval '1 s' WHERE state = 'running'"


async def test_of_a_hundred_at_once_exactly_ten_fit(
    api: httpx.AsyncClient, acme: str, settings: Settings, sql: Sql
) -> None:
    patient = dataclasses.replace(settings, db_pool_timeout=60.0)
    async with client_of(patient) as client:
        headers = dict(api.headers)
        answers = await asyncio.gather(*(client.post("/v1/jobs", json=REQUEST, headers=headers) for _ in range(100)))
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [202] * 10 + [429] * 90
    assert {answer.json()["code"] for answer in answers if answer.status_code == 429} == {"quota-exceeded"}
    assert await quota(api) == (0, 10)
    assert await sql("SELECT count(*) AS jobs FROM jobs") == [{"jobs": 10}]
    assert await sql("SELECT count(*) AS messages FROM messages") == [{"messages": 10}]


async def test_a_worker_that_dies_gives_the_job_to_another_and_it_is_paid_once(
    api: httpx.AsyncClient, acme: str, bench_of: MakeBench, engine: AsyncEngine, sql: Sql
) -> None:
    job = await ask(api)
    async with Model(silence) as model, bench_of(LLM_BASE_URL=model.url) as bench:
        doomed = asyncio.create_task(bench.work(job["task_id"]))
        await model.until(1)
        assert (await read(api, job))["status"] == "processing"
        assert await quota(api) == (0, 1)
        await sql(LAPSE)
        await bench.runtime.ledger.sweep(lambda _: None)
        assert ((await read(api, job))["status"], await quota(api)) == ("pending", (0, 1))
        assert isinstance(await bench.work(job["task_id"]), Done)
        assert await quota(api) == (1, 0)
        doomed.cancel()
        await asyncio.gather(doomed, return_exceptions=True)
    assert ((await read(api, job))["status"], await quota(api)) == ("completed", (1, 0))


async def test_a_job_that_kills_its_workers_is_given_up_and_pays_nothing(
    api: httpx.AsyncClient, acme: str, bench_of: MakeBench, sql: Sql
) -> None:
    job = await ask(api)
    async with bench_of() as bench:
        ledger = bench.runtime.ledger
        assert await ledger.claim(_uuid(job), "shared", 30) is not None
        await sql(LAPSE)
        await ledger.sweep(lambda _: None)
        assert ((await read(api, job))["status"], await quota(api)) == ("pending", (0, 1)), (
            "it was not known to be alone"
        )
        for _ in range(3):
            claim = await ledger.claim(_uuid(job), "doomed", 30)
            assert claim is not None
            await ledger.begin([claim], 1)
            await sql(LAPSE)
            await ledger.sweep(lambda _: None)
    failed = await read(api, job)
    assert (failed["status"], failed["error"]["code"]) == ("failed", "Quarantined")
    assert await quota(api) == (0, 0)


async def test_a_late_word_of_a_lost_attempt_pays_nothing_twice(
    api: httpx.AsyncClient, acme: str, bench_of: MakeBench, sql: Sql
) -> None:
    job = await ask(api)
    async with bench_of() as bench:
        ledger = bench.runtime.ledger
        zombie = await ledger.claim(_uuid(job), "zombie", 30)
        assert zombie is not None
        await sql(LAPSE)
        await ledger.sweep(lambda _: None)
        assert isinstance(await bench.work(job["task_id"]), Done)
        assert await ledger.settle(zombie, Done()) is None
    assert await quota(api) == (1, 0)


async def test_expiry_gives_the_quota_back(api: httpx.AsyncClient, acme: str, bench_of: MakeBench, sql: Sql) -> None:
    job = await ask(api)
    await sql("UPDATE messages SET expires_at = clock_timestamp()")
    async with bench_of() as bench:
        await bench.runtime.ledger.sweep(lambda _: None)
    assert ((await read(api, job))["status"], await quota(api)) == ("expired", (0, 0))


async def test_a_job_of_last_month_pays_last_month(
    api: httpx.AsyncClient, acme: str, bench_of: MakeBench, sql: Sql
) -> None:
    job = await ask(api)
    await _move_to_last_month(sql)
    assert await quota(api) == (0, 0), "a new month needs no reset"
    async with bench_of() as bench:
        await bench.work(job["task_id"])
    assert await quota(api) == (0, 0)
    rows = await sql("SELECT used, reserved FROM quotas ORDER BY period")
    assert rows[0] == {"used": 1, "reserved": 0}


async def test_a_retry_in_a_new_month_pays_the_new_one(
    api: httpx.AsyncClient, acme: str, bench_of: MakeBench, sql: Sql
) -> None:
    job = await ask(api)
    await _move_to_last_month(sql)
    async with Model(reply(400)) as model, bench_of(LLM_BASE_URL=model.url) as bench:
        await bench.work(job["task_id"])
        assert (await api.post(f"/v1/jobs/{job['id']}/retry")).status_code == 202
        assert await quota(api) == (0, 1)
        await bench.work(job["task_id"])
    assert await quota(api) == (1, 0)
    assert await sql("SELECT used, reserved FROM quotas ORDER BY period") == [
        {"used": 0, "reserved": 0},
        {"used": 1, "reserved": 0},
    ]


async def test_many_jobs_settled_together_are_counted_one_by_one(
    api: httpx.AsyncClient, acme: str, bench_of: MakeBench
) -> None:
    jobs = [await ask(api) for _ in range(9)]
    async with Model(reply(400), reply(400)) as model, bench_of(LLM_BASE_URL=model.url) as bench:
        await asyncio.gather(*(bench.work(job["task_id"]) for job in jobs))
    assert await quota(api) == (7, 0)


async def test_resetting_turns_the_month_and_again_is_harmless(
    api: httpx.AsyncClient, acme: str, engine: AsyncEngine, sql: Sql
) -> None:
    await ask(api)
    await sql(
        "INSERT INTO quotas SELECT tenant_id, organization_id, period - interval '15 months', 3, 0 FROM quotas"
        " UNION ALL SELECT tenant_id, organization_id, period - interval '16 months', 3, 1 FROM quotas"
    )
    assert (await api.put("/v1/organizations/new", json={"plan": "free"})).status_code == 200
    async with workbench(engine):
        told = [await run_now(reset_quotas) for _ in range(2)]
    assert [outcome.result for outcome in told if isinstance(outcome, Done)] == [
        {"opened": 1, "forgotten": 1},
        {"opened": 0, "forgotten": 0},
    ]
    assert await quota(api) == (0, 1), "what is reserved stays reserved"


async def test_beat_is_not_needed_for_the_first_of_the_month() -> None:
    assert reset_quotas.name == "reset_quotas_task"
    assert reset_quotas.cron is not None
    assert (reset_quotas.cron.expression, reset_quotas.cron.tz) == ("0 0 1 * *", "UTC")


@pytest.mark.parametrize("change", ["used = -1", "reserved = -1"])
async def test_postgres_refuses_a_count_below_nothing(api: httpx.AsyncClient, acme: str, sql: Sql, change: str) -> None:
    await ask(api)
    with pytest.raises(Exception, match="ck_quotas_counts"):
        await sql(f"UPDATE quotas SET {change}")


async def test_organizations_are_put_and_read(api: httpx.AsyncClient) -> None:
    assert (await api.get("/v1/organizations/acme")).status_code == 404
    assert (await api.put("/v1/organizations/acme", json={"plan": "business"})).status_code == 200
    told = (await api.put("/v1/organizations/acme", json={"plan": "team", "job_limit": 5})).json()
    assert (await api.get("/v1/organizations/acme")).json() == told
    assert (told["plan"], told["trust_score"], told["job_limit"]) == ("team", 50, 5)
    left = (await api.get("/v1/organizations/acme/quotas")).json()
    assert (left["limit"], left["remaining"], left["plan"]) == (5, 5, "team")
    wrong = await api.put("/v1/organizations/acme", json={"plan": "gold", "trust_score": 50})
    assert (wrong.status_code, "free, team, business" in wrong.text) == (422, True)
    assert (await api.put("/v1/organizations/a%20b", json={"plan": "team"})).status_code == 422


async def _move_to_last_month(sql: Sql) -> None:
    """What waiting until the first of the month does."""
    await sql("UPDATE quotas SET period = period - interval '1 month'")
    await sql("UPDATE jobs SET period = period - interval '1 month'")


def _uuid(job: dict[str, Any]) -> UUID:
    return UUID(job["task_id"])
