"""`activities.generate` against a chat endpoint that misbehaves as its script says."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from callboard_workers.policy import DeadLetter, Done, RetryAt
from service.activities.llm import retry_after
from service.activities.prompt import SCHEMA
from tests.service.activities.fake_llm import GOOD, SHORT, Model, Step, hang_up, reply, say, silence
from tests.service.jobs.bench import MakeBench
from tests.service.jobs.test_api import ask, quota, read


async def test_three_activities_come_from_the_model(api: httpx.AsyncClient, acme: str, bench_of: MakeBench) -> None:
    job = await ask(api)
    async with (
        Model(say(GOOD)) as model,
        bench_of(LLM_BASE_URL=model.url, LLM_API_KEY="sk-1", LLM_MODEL="small") as bench,
    ):
        assert isinstance(await bench.work(job["task_id"]), Done)
    done = await read(api, job)
    assert done["status"] == "completed"
    assert done["result"] == {"provider": "llm", "model": "small", **GOOD}
    assert done["progress"] == {"done": 3, "total": 3, "note": "made by small"}
    [asked] = model.asked
    assert asked["model"] == "small"
    assert asked["response_format"]["json_schema"] == {"name": "activities", "schema": SCHEMA, "strict": True}
    assert json.loads(asked["messages"][1]["content"])["topic"] == "billing"
    assert "authorization: bearer sk-1" in model.heads[0].lower()
    assert model.heads[0].startswith("POST /v1/chat/completions ")


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (reply(429, "slow down", Retry_After="7"), ("llm_rate_limited", True)),
        (reply(500), ("llm_unavailable", True)),
        (reply(503, "<html>"), ("llm_unavailable", True)),
        (silence, ("llm_timeout", True)),
        (hang_up, ("llm_unreachable", True)),
        (reply(200, "{nonsense"), ("llm_malformed", True)),
        (reply(200, '{"choices": []}'), ("llm_malformed", True)),
        (say("", finish_reason="length"), ("llm_malformed", True)),
        (reply(200, "x" * (1024 * 1024 + 1)), ("llm_malformed", True)),
        (reply(301, Location="http://127.0.0.1:9/"), ("llm_refused", False)),
        (reply(400, "no"), ("llm_refused", False)),
        (reply(401), ("llm_refused", False)),
        (reply(404), ("llm_refused", False)),
        (say("", finish_reason="content_filter"), ("llm_declined", False)),
    ],
)
async def test_a_failure_is_tried_again_or_is_final(
    api: httpx.AsyncClient, acme: str, bench_of: MakeBench, step: Step, error: tuple[str, bool]
) -> None:
    code, retryable = error
    job = await ask(api)
    patience = "0.5" if step is silence else "20"
    async with Model(step) as model, bench_of(LLM_BASE_URL=model.url, LLM_TIMEOUT=patience) as bench:
        outcome = await bench.work(job["task_id"])
        failed = await read(api, job)
        assert (failed["error"]["code"], failed["error"]["retryable"]) == (code, retryable)
        assert len(model.asked) == 1
        if not retryable:
            assert isinstance(outcome, DeadLetter)
            assert (failed["status"], await quota(api)) == ("failed", (0, 0))
            return
        assert isinstance(outcome, RetryAt)
        assert outcome.delay == 7 if code == "llm_rate_limited" else outcome.delay <= 2
        assert (failed["status"], await quota(api)) == ("pending", (0, 1))
        assert isinstance(await bench.work(job["task_id"]), Done)
    done = await read(api, job)
    assert (done["status"], done["attempts"], done["error"]) == ("completed", 2, None)
    assert await quota(api) == (1, 0)


@pytest.mark.parametrize("bad", ["Sure! Here are three activities.", json.dumps(SHORT), "{}", "😀"])
async def test_an_answer_that_breaks_the_schema_is_repaired_once(
    api: httpx.AsyncClient, acme: str, bench_of: MakeBench, bad: str
) -> None:
    job = await ask(api)
    async with (
        Model(say(bad), say(f"```json\n{json.dumps(GOOD)}\n```")) as model,
        bench_of(LLM_BASE_URL=model.url) as b,
    ):
        assert isinstance(await b.work(job["task_id"]), Done)
    assert (await read(api, job))["result"]["activities"] == GOOD["activities"]
    first, second = model.asked
    assert second["messages"][:2] == first["messages"]
    assert second["messages"][2] == {"role": "assistant", "content": bad}
    assert "does not follow the schema" in second["messages"][3]["content"]


async def test_a_model_that_breaks_the_schema_twice_is_asked_again_later(
    api: httpx.AsyncClient, acme: str, bench_of: MakeBench
) -> None:
    job = await ask(api)
    async with Model(say(SHORT), say(SHORT)) as model, bench_of(LLM_BASE_URL=model.url) as bench:
        assert isinstance(await bench.work(job["task_id"]), RetryAt)
        assert (await read(api, job))["error"]["code"] == "llm_output_invalid"
        assert isinstance(await bench.work(job["task_id"]), Done)
    assert len(model.asked) == 3


async def test_an_endpoint_that_does_not_know_response_format_is_asked_without_it(
    api: httpx.AsyncClient, acme: str, bench_of: MakeBench
) -> None:
    jobs = [await ask(api) for _ in range(2)]
    refusal = reply(400, '{"error": {"message": "unknown parameter: response_format"}}')
    async with Model(refusal) as model, bench_of(LLM_BASE_URL=model.url) as bench:
        for job in jobs:
            assert isinstance(await bench.work(job["task_id"]), Done)
    assert ["response_format" in asked for asked in model.asked] == [True, False, False]


async def test_attempts_run_out_and_the_quota_is_given_back(
    api: httpx.AsyncClient, acme: str, bench_of: MakeBench
) -> None:
    job = await ask(api)
    async with Model(otherwise=reply(500)) as model, bench_of(LLM_BASE_URL=model.url) as bench:
        for _ in range(6):
            outcome = await bench.work(job["task_id"])
        assert isinstance(outcome, DeadLetter)
    failed = await read(api, job)
    assert (failed["status"], failed["attempts"], failed["error"]["retryable"]) == ("failed", 6, True)
    assert await quota(api) == (0, 0)


async def test_one_client_serves_a_loop_and_is_closed_with_it(
    api: httpx.AsyncClient, acme: str, bench_of: MakeBench
) -> None:
    jobs = [await ask(api) for _ in range(4)]
    async with Model() as model:
        async with bench_of(LLM_BASE_URL=model.url) as bench:
            await asyncio.gather(*(bench.work(job["task_id"]) for job in jobs))
            chat = bench.runtime.state["activities"].chat
            assert not chat._client.is_closed
        assert chat._client.is_closed
    assert len(model.asked) == 4


def test_retry_after_is_seconds_or_a_date() -> None:
    now = datetime(2026, 1, 12, 8, 0, tzinfo=UTC)
    cases: dict[str, Any] = {
        "7": 7.0,
        "999999999": 3600.0,
        "Mon, 12 Jan 2026 08:00:30 GMT": 30.0,
        "Mon, 12 Jan 2026 07:00:00 GMT": 0.0,
        "Mon, 12 Jan 2026 08:00:30": 30.0,
        "": None,
        "soon": None,
        "-5": None,
        "٧": None,
    }
    assert {given: retry_after(given, now) for given in cases} == cases
