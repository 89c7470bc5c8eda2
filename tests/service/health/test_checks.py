"""The operational checks: `status`, `doctor`, the console and `/health/ready` report the same findings, with a fix."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import redis
from redis.asyncio import from_url
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.redis import address
from service.db import engine as db
from service.db import migrate
from service.health import checks, heartbeats
from service.health.heartbeats import HEARTBEATS
from service.settings import Settings
from tests.journeys.house import ROOT, House, house
from tests.service.conftest import MakeKey, client_of

EMAIL = {"to": "ada@example.org", "subject": "Hello", "text": "It works."}


async def findings(made: House, *names: str) -> list[dict[str, str]]:
    """The findings of `/health/ready`, as soon as those of these names are among them."""

    async def found() -> list[dict[str, str]] | None:
        async with httpx.AsyncClient(timeout=30) as client:
            all_of_them = (await client.get(f"{made.url}/health/ready")).json()["findings"]
        return all_of_them if set(names) <= {each["name"] for each in all_of_them} else None

    return await made.eventually(found, f"the API reports {names}", 90)


async def reported(redis_url: str) -> None:
    """Wait until a worker has reported itself in Redis."""
    async with asyncio.timeout(30), from_url(redis_url) as redis:
        while not await redis.hlen(HEARTBEATS):  # noqa: ASYNC110 - the worker is another process
            await asyncio.sleep(0.05)


async def command(made: House, *words: str) -> str:
    """What a command prints, in one line, with the environment of the processes."""
    environ = {**os.environ, **made.environ, "COLUMNS": "400"}
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "service", *words],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        check=False,
    )
    return " ".join((done.stdout + done.stderr).decode().split())


async def console(made: House, key: str) -> str:
    """The console's overview, in one line."""
    async with httpx.AsyncClient(base_url=made.url, timeout=60) as client:
        await client.post("/console/sign-in", data={"key": key, "next": "/console"})
        text = (await client.get("/console")).text
    for shown, plain in (("&#39;", "'"), ("<code>", "`"), ("</code>", "`")):
        text = text.replace(shown, plain)
    return " ".join(text.split())


def without_seconds(text: str) -> str:
    return re.sub(r"for \d+ s", "for … s", text)


async def everywhere(made: House, found: list[dict[str, str]]) -> None:
    """Asserts that status, doctor and the console say what `/health/ready` says, and the fix."""
    key = await made.key(scopes=("*", "operator"))
    said = await asyncio.gather(command(made, "status"), command(made, "doctor", "--json"), console(made, key))
    async with httpx.AsyncClient(timeout=30) as client:
        metrics = (await client.get(f"{made.url}/metrics")).text
    for finding in found:
        for place in said:
            assert without_seconds(finding["sentence"]) in without_seconds(place)
            assert finding["fix"] in place
        assert f'callboard_findings{{name="{finding["name"]}",severity="{finding["severity"]}"}}' in metrics


async def test_a_stopped_worker_is_reported_everywhere_and_forgotten_once_it_runs(
    tmp_path: Path, database: str, redis_url: str
) -> None:
    async with house(tmp_path, database, redis_url) as made:
        await made.start_api()
        await made.start_worker()
        pid = made.processes["worker"].pid
        async with httpx.AsyncClient(timeout=30) as client:
            assert (await client.get(f"{made.url}/health/ready")).json()["findings"] == []
        await reported(redis_url)
        os.kill(pid, signal.SIGSTOP)
        try:
            found = await findings(made, "worker-silent", "workers-missing")
            assert f"process {pid}" in found[0]["sentence"]
            await everywhere(made, found)
        finally:
            os.kill(pid, signal.SIGCONT)

        async def well() -> bool:
            async with httpx.AsyncClient(timeout=30) as client:
                return (await client.get(f"{made.url}/health/ready")).json()["findings"] == []

        await made.eventually(well, "nothing is reported any more")
        assert made.stop("worker") == 0
        found = await findings(made, "workers-missing")
        assert [each["name"] for each in found] == ["workers-missing"], "a worker that stopped is not a silent one"


async def test_a_queue_that_no_worker_serves_is_reported_everywhere(
    tmp_path: Path, database: str, redis_url: str
) -> None:
    async with house(tmp_path, database, redis_url, QUEUES="jobs") as made:
        await made.start_api()
        await made.start_worker()
        async with httpx.AsyncClient(base_url=made.url, timeout=30) as client:
            headers = {"Authorization": f"Bearer {await made.key()}"}
            for _ in range(2):
                assert (await client.post("/v1/emails", json=EMAIL, headers=headers)).status_code == 202
        found = await findings(made, "queue-unserved")
        assert [each["sentence"] for each in found] == ["2 messages wait in queue email, which no worker serves."]
        assert "QUEUES=email" in found[0]["fix"]
        await everywhere(made, found)


async def found_of(settings: Settings) -> dict[str, checks.Finding]:
    """The findings as a command gets them."""
    engine = db.create_engine(settings)
    client = address.async_client(settings.redis_url, socket_timeout=20, socket_connect_timeout=20)
    try:
        report = await checks.examine(engine, client, migrate.head(), data=settings.data)
    finally:
        await client.aclose()
        await engine.dispose()
    return {finding.name: finding for finding in report.findings}


async def test_an_endpoint_that_fails_every_call_is_counted_without_its_tenant(
    settings: Settings, engine: AsyncEngine, make_key: MakeKey
) -> None:
    async with client_of(settings) as client:
        client.headers["Authorization"] = f"Bearer {await make_key('*')}"
        made = await client.post("/v1/webhooks", json={"url": "https://shop.example.com/hook"})
        assert made.status_code == 201, made.text
        assert "endpoint-failing" not in await found_of(settings)
        async with engine.begin() as connection:
            await connection.exec_driver_sql(
                "UPDATE webhook_endpoints SET failures = 3, failing_since = '2026-01-02 03:04Z'"
            )
        told = (await client.get("/health/ready")).json()
    finding = (await found_of(settings))["endpoint-failing"]
    assert finding.sentence == "1 webhook endpoint fails every call, since 2026-01-02 03:04 UTC."
    assert finding.sentence in [each["sentence"] for each in told["findings"]], "the API's role counts all tenants'"
    assert "shop" not in json.dumps(told)


async def test_full_memory_and_buried_tasks_of_redis_are_reported(settings: Settings, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as server:
        server.lpush(checks.DEAD, b"one", b"two")
        found = await found_of(settings)
        assert found["tasks-buried"].severity == "warning"
        assert found["tasks-buried"].sentence.startswith("2 tasks of Celery clients")
        policy = server.config_get("maxmemory-policy")["maxmemory-policy"]
        server.config_set("maxmemory-policy", "noeviction")
        server.config_set("maxmemory", 1_048_576)
        try:
            assert (await found_of(settings))["redis-full"].severity == "error"
        finally:
            server.config_set("maxmemory", 0)
            server.config_set("maxmemory-policy", policy)
            server.delete(checks.DEAD)


async def test_servers_that_do_not_respond_are_findings_and_hide_nothing_else(settings: Settings) -> None:
    away: dict[str, Any] = {"DATABASE_URL": "postgresql://localhost:1/x", "REDIS_URL": "redis://localhost:1/0"}
    found = await found_of(Settings.from_env(away))
    assert set(found) == {"postgres", "redis"}
    assert all(finding.severity == "error" and finding.fix for finding in found.values())


async def test_a_worker_whose_name_reports_again_is_not_silent(settings: Settings, redis_url: str) -> None:
    old = b'1000\n{"queues":["email"],"declared":[],"lag":0.0}'
    with redis.Redis.from_url(redis_url) as server:
        seconds, _ = server.time()
        now = str(seconds * 1000).encode() + old[4:]
        recent = str(seconds * 1000 - 60_000).encode() + old[4:]
        server.hset(heartbeats.HEARTBEATS, mapping={"w1@a#1": recent, "w1@a#2": now, "w2@a#3": recent, "w3@a#4": old})
    client = address.async_client(redis_url)
    found = {f"{worker.node}#{worker.pid}": worker.alive for worker in await heartbeats.list_workers(client)}
    await client.aclose()
    assert found == {"w1@a#2": True, "w2@a#3": False}
