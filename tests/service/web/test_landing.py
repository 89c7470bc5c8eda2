"""Health, metrics, the schema and the front door, over the whole application."""

import json
import re

import httpx
import msgspec
import pytest
from litestar.routes import HTTPRoute
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.app import create_app
from service.settings import Settings
from service.web.json_body import decode
from tests.service.conftest import client_of
from tests.service.web.test_hostile import problem


async def test_ready_names_each_dependency(api: httpx.AsyncClient) -> None:
    answer = await api.get("/health/ready")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ready"
    assert answer.json()["checks"].keys() == {"postgres", "schema", "redis"}
    assert all(check["ok"] for check in answer.json()["checks"].values())


async def test_a_database_without_tables_is_unready_and_says_how_to_mend_it(
    empty_database: str, redis_url: str
) -> None:
    settings = Settings.from_env({"DATABASE_URL": empty_database, "REDIS_URL": redis_url})
    async with client_of(settings, routers=[]) as client:
        answer = await client.get("/health/ready")
    assert answer.status_code == 503
    assert "callboard migrate" in answer.json()["checks"]["schema"]["detail"]


async def test_metrics_count_requests_by_route_and_never_by_id(shelf: httpx.AsyncClient) -> None:
    for number in range(3):
        await shelf.post("/v1/books", json={"title": "t"})
        await shelf.get(f"/v1/tasks-{number}")
    told = (await shelf.get("/metrics")).text
    assert 'http_requests_total{method="POST",route="/v1/books",status="202"} 3.0' in told
    assert 'http_requests_total{method="GET",route="unmatched",status="404"} 3.0' in told
    assert 'http_request_duration_seconds_count{method="POST",route="/v1/books"} 3.0' in told
    assert re.search(r'http_request_duration_seconds_bucket\{le="\+Inf",method="POST",route="/v1/books"\} 3.0', told)
    assert 'celery_queue_length{priority="6",queue_name="default"} 3.0' in told
    assert "celery_queue_oldest_age_seconds" in told
    assert "process_resident_memory_bytes" in told


async def test_the_ledger_is_asked_at_most_every_five_seconds(shelf: httpx.AsyncClient, engine: AsyncEngine) -> None:
    before = (await shelf.get("/metrics")).text
    await shelf.post("/v1/books", json={"title": "t"})
    assert "celery_queue_length{" not in before
    assert "celery_queue_length{" not in (await shelf.get("/metrics")).text


async def test_every_route_documents_itself_and_its_errors(api: httpx.AsyncClient) -> None:
    schema = (await api.get("/schema/openapi.json")).json()
    assert schema["openapi"].startswith("3.1")
    for path, item in schema["paths"].items():
        for method, operation in item.items():
            name = f"{method} {path}"
            assert operation.get("summary"), name
            assert operation.get("description"), name
            assert {"500", "503"} <= operation["responses"].keys(), name
            if operation.get("x-scopes") is not None:
                assert {"401", "403", "429"} <= operation["responses"].keys(), name
            if "requestBody" in operation:
                assert {"400", "413", "415", "422"} <= operation["responses"].keys(), name
            if "{" in path:
                assert "404" in operation["responses"], name


async def test_every_example_is_what_its_route_takes_and_answers(settings: Settings) -> None:
    app = create_app(settings).app.app
    checked = 0
    for route in app.routes:
        for handler in route.route_handlers if isinstance(route, HTTPRoute) else []:
            given = handler.opt.get("examples", {})
            if given.get("body") is not None:
                read = handler.opt.get("bodies", {}).get("application/json")
                decode(json.dumps(given["body"]).encode(), read or handler.parsed_data_field.annotation)
                checked += 1
            answer = handler.parsed_fn_signature.return_type.annotation
            if given.get("answer") is not None and hasattr(answer, "__struct_fields__"):
                shown = json.loads(msgspec.json.encode(msgspec.convert(given["answer"], answer)))
                assert shown.keys() == given["answer"].keys()
                checked += 1
    assert checked >= 3


async def test_every_reference_of_the_schema_leads_somewhere(api: httpx.AsyncClient) -> None:
    schema = (await api.get("/schema/openapi.json")).json()
    for reference in re.findall(r'"\$ref": ?"#/([^"]+)"', json.dumps(schema)):
        found = schema
        for step in reference.split("/"):
            found = found[step]


async def test_the_page_of_the_schema_loads_nothing(api: httpx.AsyncClient) -> None:
    page = await api.get("/schema")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert not re.findall(r"<script|<link|@import|\ssrc=", page.text)
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "/v1/tasks/{task_id}" in page.text
    assert "tasks:read" in page.text


@pytest.mark.parametrize("path", ["/schema/nothing", "/schema/x.json", "/errors/NO%20SUCH"])
async def test_there_is_nothing_else_below_the_schema(api: httpx.AsyncClient, path: str) -> None:
    problem(await api.get(path), 404)


async def test_the_front_door_speaks_to_people_and_to_programs(api: httpx.AsyncClient) -> None:
    shown = (await api.get("/", headers={"Accept": "text/html,*/*;q=0.8"})).text
    assert "<h1>Callboard" in shown
    links = (await api.get("/")).json()["links"]
    for path in links.values():
        assert (await api.get(path)).status_code == (401 if path == "/console" else 200), path
        assert f'href="{path}"' in shown


async def test_the_schema_shows_no_backticks_and_leads_to_the_console(api: httpx.AsyncClient) -> None:
    shown = (await api.get("/schema")).text
    prose = re.sub(r"<pre>.*?</pre>", "", shown.partition("<body>")[2], flags=re.DOTALL)
    assert "`" not in prose
    assert 'href="/console"' in shown


async def test_the_type_of_a_problem_leads_to_its_meaning(api: httpx.AsyncClient) -> None:
    told = problem(await api.get("/v1/tasks/1"), 404)
    answer = await api.get(told["type"])
    assert answer.json()["code"] == "unknown-task"


async def test_the_version_of_the_schema_is_what_the_database_has(api: httpx.AsyncClient, engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '20200101_old'"))
    answer = await api.get("/health/ready")
    assert answer.status_code == 503
    assert "20200101_old" in answer.json()["checks"]["schema"]["detail"]
