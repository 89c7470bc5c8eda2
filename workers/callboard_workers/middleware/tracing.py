"""Spans of OpenTelemetry around sending and processing; needs `callboard[otel]`, and an SDK that takes them away.

Names and attributes are those of OpenTelemetry's semantic conventions for messaging.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from callboard_workers.context import Context, correlation
from callboard_workers.errors import WorkersError
from callboard_workers.message import Message
from callboard_workers.middleware.base import Execute, Middleware, Send
from callboard_workers.policy import Outcome, word

if TYPE_CHECKING:
    from opentelemetry.trace import Span, TracerProvider

NEAR = 60.0
"""Seconds after which a message's first attempt is no longer part of the trace that sent it, but linked to it."""


class Tracer:
    """Starts spans whose origin crosses processes in `traceparent` and `tracestate`.

    WorkersError if the OpenTelemetry API is not installed. Without an SDK its spans are empty and cost next to nothing.
    """

    def __init__(self, name: str, provider: TracerProvider | None = None) -> None:
        try:
            from opentelemetry import trace  # noqa: PLC0415 (optional)
            from opentelemetry.context import Context as Empty  # noqa: PLC0415
            from opentelemetry.trace.propagation import tracecontext  # noqa: PLC0415
        except ImportError as error:
            raise WorkersError("tracing needs the OpenTelemetry API: pip install 'callboard[otel]'") from error
        self._trace, self._empty = trace, Empty
        self._propagator = tracecontext.TraceContextTextMapPropagator()
        self._tracer = trace.get_tracer(name, tracer_provider=provider)

    @contextmanager
    def span(
        self, name: str, kind: str, carrier: Mapping[str, Any], attributes: Mapping[str, Any], *, linked: bool = False
    ) -> Iterator[Span]:
        """A span below the one that runs here, else below that of `carrier`; `linked`: of its own, linked to that."""
        origin = self._propagator.extract(carrier, context=self._empty())
        here = self._trace.get_current_span()
        parent = self._trace.set_span_in_context(here, self._empty()) if here.get_span_context().is_valid else origin
        links = []
        if linked and (came_from := self._trace.get_current_span(origin).get_span_context()).is_valid:
            parent, links = self._empty(), [self._trace.Link(came_from)]
        with self._tracer.start_as_current_span(
            name,
            context=parent,
            kind=self._trace.SpanKind[kind],
            attributes={key: value for key, value in attributes.items() if value is not None},
            links=links,
            record_exception=False,  # what it says may not be for whoever reads traces
        ) as span:
            yield span

    def fail(self, span: Span, error: str) -> None:
        """Mark a span as one that ended in an error of this type."""
        span.set_attribute("error.type", error)
        span.set_status(self._trace.StatusCode.ERROR, error)

    def carrier(self, span: Span) -> dict[str, str]:
        """The headers by which others join this span; empty if nobody records it."""
        found: dict[str, str] = {}
        if span.get_span_context().is_valid:
            self._propagator.inject(found, context=self._trace.set_span_in_context(span, self._empty()))
        return found


class Tracing(Middleware):
    """A producer span `send {queue}` for each message, a consumer span `process {queue}` for each attempt.

    A first attempt within a minute belongs to the trace of its sender; what comes later (delays, retries, a backlog,
    after a crash) has a trace of its own, with a link. What an attempt sends is below its span.
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._tracer = Tracer("callboard.workers", provider)

    async def send(self, message: Message, next: Send) -> Message:
        attributes = _attributes("send", message.queue, message.actor, message.id, message.headers.get("request_id"))
        with self._tracer.span(f"send {message.queue}", "PRODUCER", message.headers, attributes) as span:
            if carrier := self._tracer.carrier(span):
                headers = {**message.headers, "tracestate": "", **carrier}
                headers = {name: value for name, value in headers.items() if value}
                message = msgspec.structs.replace(message, headers=headers)
            return await next(message)

    async def execute(self, context: Context, next: Execute) -> Outcome:
        attributes = _attributes("process", context.queue, context.actor.name, context.id, context.request_id)
        attributes |= {"callboard.attempt": context.attempt, "callboard.crashes": context.crashes}
        name, linked = f"process {context.queue}", _is_later(context)
        with self._tracer.span(name, "CONSUMER", context.headers, attributes, linked=linked) as span:
            carrier = self._tracer.carrier(span)
            origin = correlation.get()
            mark = correlation.set(
                msgspec.structs.replace(
                    origin,
                    traceparent=carrier.get("traceparent", origin.traceparent),
                    tracestate=carrier.get("tracestate") if carrier else origin.tracestate,
                )
            )
            try:
                outcome = await next(context)
            finally:
                correlation.reset(mark)
            span.set_attribute("callboard.outcome", word(outcome))
            if outcome.error is not None:
                self._tracer.fail(span, outcome.error["type"])
            return outcome


def _attributes(operation: str, queue: str, actor: str, id: UUID, request_id: str | None) -> dict[str, Any]:
    return {
        "messaging.system": "celery",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": queue,
        "messaging.message.id": str(id),
        "messaging.message.conversation_id": request_id,
        "callboard.actor": actor,
    }


def _is_later(context: Context) -> bool:
    """Whether the message was sent some time ago, by its id if that is a UUIDv7, or was tried before."""
    if context.attempt > 1 or context.crashes or context.snoozes:
        return True
    return context.id.version == 7 and dt.datetime.now(dt.UTC).timestamp() - (context.id.int >> 80) / 1000 > NEAR
