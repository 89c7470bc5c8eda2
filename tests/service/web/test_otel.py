"""With TRACING each request is a span below its caller's, and what it enqueues is below that."""

import dataclasses
from collections.abc import AsyncIterator
from functools import partial

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.settings import Settings
from service.web.otel import Traced
from tests.service.conftest import MakeKey, client_of
from tests.service.web.shelf import router
from tests.service.web.test_middleware import TRACE


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Takes the spans of the application."""
    made, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(made))
    monkeypatch.setattr("service.app.Traced", partial(Traced, provider=provider))
    return made


@pytest.fixture
async def traced(
    settings: Settings, make_key: MakeKey, books: None, exporter: InMemorySpanExporter
) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(dataclasses.replace(settings, tracing=True), routers=[router]) as client:
        client.headers["Authorization"] = f"Bearer {await make_key('books:*')}"
        yield client


async def test_a_request_is_a_span_and_its_message_is_below_it(
    traced: httpx.AsyncClient, exporter: InMemorySpanExporter, engine: AsyncEngine
) -> None:
    headers = {"traceparent": TRACE, "tracestate": "a=b", "X-Request-ID": "r-1"}
    assert (await traced.post("/v1/books", json={"title": "t"}, headers=headers)).status_code == 202
    [span] = [span for span in exporter.get_finished_spans() if span.kind is SpanKind.SERVER]
    assert span.name == "POST /v1/books"
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == TRACE.split("-")[2]
    assert dict(span.attributes or {}) == {
        "http.request.method": "POST",
        "url.scheme": "http",
        "callboard.request_id": "r-1",
        "http.route": "/v1/books",
        "http.response.status_code": 202,
    }
    async with engine.connect() as connection:
        found = (await connection.execute(text("SELECT headers FROM messages"))).scalar_one()
    assert found["traceparent"] == f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01"
    assert found["tracestate"] == "a=b"


async def test_a_refusal_is_no_error_of_ours(traced: httpx.AsyncClient, exporter: InMemorySpanExporter) -> None:
    assert (await traced.get("/nowhere?title=secret")).status_code == 404
    [span] = exporter.get_finished_spans()
    assert (span.name, (span.attributes or {})["http.response.status_code"]) == ("GET", 404)
    assert span.status.is_unset
    assert "secret" not in span.to_json()
