"""One trace from the request to what its messages send; later work has a trace of its own, linked to it."""

import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from uuid_utils.compat import uuid7

from callboard_workers import Backoff, Correlation, Message, Registry, actor, correlation, current
from callboard_workers.cron import tick_id
from callboard_workers.middleware import Logs, Tracing, defaults
from callboard_workers.testing import Workbench, workbench

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> TracerProvider:
    made = TracerProvider()
    made.add_span_processor(SimpleSpanProcessor(exporter))
    return made


@pytest.fixture
async def bench(engine: AsyncEngine, declared: Registry, provider: TracerProvider) -> AsyncIterator[Workbench]:
    layers = defaults()
    async with workbench(engine, middleware=[layers[0], Tracing(provider), *layers[1:]]) as made:
        yield made


async def enqueue(bench: Workbench, sender: Any, *args: Any) -> Message:
    async with AsyncSession(bench.runtime.engine) as session:
        message: Message = await sender.enqueue(session, *args)
        await session.commit()
    return message


def named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


def parent(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def origin() -> Any:
    return correlation.set(Correlation(request_id="r-7", traceparent=TRACE, tracestate="shop=1"))


@pytest.mark.parametrize("durable", [True, False])
async def test_a_message_is_part_of_the_trace_of_its_request(
    bench: Workbench, exporter: InMemorySpanExporter, durable: bool
) -> None:
    @actor(name="tr.child", queue="below")
    async def child() -> None: ...

    @actor(name="tr.parent", queue="mail")
    async def parent_() -> None:
        await child.send()

    mark = origin()
    message = await enqueue(bench, parent_) if durable else await parent_.send()
    correlation.reset(mark)
    await bench.drain()
    [send], [process] = named(exporter, "send mail"), named(exporter, "process mail")
    [send_child], [process_child] = named(exporter, "send below"), named(exporter, "process below")
    assert {f"{span.context.trace_id:032x}" for span in exporter.get_finished_spans()} == {TRACE.split("-")[1]}
    assert f"{parent(send):016x}" == TRACE.split("-")[2]
    assert [parent(process), parent(send_child), parent(process_child)] == [
        span.context.span_id for span in (send, process, send_child)
    ]
    assert (send.kind, process.kind, process.links) == (SpanKind.PRODUCER, SpanKind.CONSUMER, ())
    assert process.context.trace_state.get("shop") == "1"
    assert dict(process.attributes or {}) == {
        "messaging.system": "celery",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "mail",
        "messaging.message.id": str(message.id),
        "messaging.message.conversation_id": "r-7",
        "callboard.actor": "tr.parent",
        "callboard.attempt": 1,
        "callboard.crashes": 0,
        "callboard.outcome": "done",
    }
    assert (send.attributes or {})["messaging.message.id"] == str(message.id)


async def test_a_retry_has_a_trace_of_its_own_linked_to_its_origin(
    bench: Workbench, exporter: InMemorySpanExporter
) -> None:
    @actor(name="tr.again", backoff=Backoff(min=60, max=60))
    async def again() -> None:
        if current().attempt == 1:
            raise ConnectionError("secret")

    mark = origin()
    await enqueue(bench, again)
    correlation.reset(mark)
    await bench.finish()
    [send], [first, second] = named(exporter, "send default"), named(exporter, "process default")
    assert (first.status.status_code, first.status.description) == (StatusCode.ERROR, "ConnectionError")
    assert (first.attributes or {})["error.type"] == "ConnectionError"
    assert (first.attributes or {})["callboard.outcome"] == "retry"
    assert "secret" not in first.to_json()
    assert second.status.status_code is StatusCode.UNSET
    assert second.parent is None
    assert [link.context.span_id for link in second.links] == [send.context.span_id]
    assert second.context.trace_id != first.context.trace_id


async def test_what_was_sent_long_ago_is_linked(bench: Workbench, exporter: InMemorySpanExporter) -> None:
    @actor(name="tr.late")
    async def late() -> None: ...

    mark = origin()
    long_ago = tick_id("tr.late", bench.clock.now().replace(year=2024))
    await enqueue(bench, late.options(id=long_ago))
    correlation.reset(mark)
    await bench.drain()
    [process] = named(exporter, "process default")
    assert process.parent is None
    assert len(process.links) == 1


async def test_without_an_origin_a_trace_begins(bench: Workbench, exporter: InMemorySpanExporter) -> None:
    @actor(name="tr.alone")
    async def alone() -> None: ...

    await alone.send()
    await bench.broker.publish([Message(actor="tr.alone", id=uuid7(), headers={"traceparent": "garbage"})])
    await bench.drain()
    [send], [process, stray] = named(exporter, "send default"), named(exporter, "process default")
    assert (send.parent, stray.parent) == (None, None)
    assert parent(process) == send.context.span_id


async def test_a_span_of_the_application_is_the_parent(
    bench: Workbench, exporter: InMemorySpanExporter, provider: TracerProvider
) -> None:
    @actor(name="tr.child")
    async def child() -> None: ...

    with trace.get_tracer("app", tracer_provider=provider).start_as_current_span("checkout") as checkout:
        await child.send()
    [send] = named(exporter, "send default")
    assert parent(send) == checkout.get_span_context().span_id


async def test_without_an_sdk_nothing_is_changed(engine: AsyncEngine, declared: Registry) -> None:
    @actor(name="tr.plain")
    async def plain() -> str | None:
        return correlation.get().traceparent

    mark = origin()
    async with workbench(middleware=[Logs(), Tracing()]) as bench:
        await plain.send()
        [(_, outcome)] = await bench.drain()
    correlation.reset(mark)
    assert getattr(outcome, "result", None) == TRACE


def test_what_is_not_wanted_is_not_imported() -> None:
    code = (
        "import sys, callboard_workers, callboard_workers.celery\n"
        "assert not [m for m in sys.modules if m.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
    absent = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from callboard_workers.middleware import defaults\ndefaults()\n"
        "try:\n    defaults(tracing=True)\nexcept Exception as error:\n    print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", absent], check=True, timeout=100, capture_output=True, text=True)
    assert ran.stdout.strip() == "tracing needs the OpenTelemetry API: pip install 'callboard[otel]'"
