"""Prometheus metrics of the API: its requests, and what waits in the ledger.

The ledger is asked at most every 5 seconds, whoever scrapes: two statements on partial indexes.
"""

import asyncio
import time
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
LEDGER_EVERY = 5.0  # seconds

QUEUES = text(
    "SELECT queue, priority, count(*) AS waiting, count(*) FILTER (WHERE due_at <= clock_timestamp()) AS due,"
    " coalesce(extract(epoch FROM clock_timestamp() - min(due_at)), 0)::float8 AS oldest"
    " FROM messages WHERE state = 'queued' GROUP BY queue, priority"
)
HELD = text("SELECT queue, state, count(*) AS held FROM messages WHERE state = ANY(:states) GROUP BY queue, state")


class HttpMetrics:
    """Counts and times requests; the labels are the method, the route's template and the status, never an id."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._requests = Counter(
            "http_requests", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self._duration = Histogram(
            "http_request_duration_seconds", "Time to answer.", ["method", "route"], buckets=BUCKETS, registry=registry
        )
        self._active = Gauge("http_requests_active", "Requests being answered.", registry=registry)
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def begin(self) -> None:
        """Note that a request came in."""
        self._active.inc()

    def end(self, method: str, route: str, status: int, took: float) -> None:
        """Note that a request was answered after `took` seconds; status 499 is a caller that left."""
        self._active.dec()
        found = self._children.get((method, route, status))
        if found is None:
            method = method if method in METHODS else "other"
            found = self._requests.labels(method, route, str(status)), self._duration.labels(method, route)
            if len(self._children) < 2000:
                self._children[method, route, status] = found
        found[0].inc()
        found[1].observe(took)


METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


class LedgerMetrics:
    """Gauges of the ledger: depth and oldest age of each queue, messages that run, and those that wait for a person."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        labels = ["queue_name", "priority"]
        self._length = Gauge("celery_queue_length", "Messages due and waiting.", labels, registry=registry)
        self._later = Gauge("celery_queue_scheduled", "Messages that wait for their time.", labels, registry=registry)
        self._oldest = Gauge(
            "celery_queue_oldest_age_seconds", "Age of the oldest due message.", labels, registry=registry
        )
        self._states = Gauge(
            "celery_ledger_messages", "Messages in a state.", ["queue_name", "state"], registry=registry
        )
        self._next = 0.0
        self._lock = asyncio.Lock()

    async def refresh(self, engine: AsyncEngine) -> None:
        """Ask the ledger, unless somebody just did."""
        async with self._lock:
            if time.monotonic() < self._next:
                return
            self._next = time.monotonic() + LEDGER_EVERY
            async with engine.connect() as connection:
                waiting = (await connection.execute(QUEUES)).all()
                states = ["running", "dead", "uncertain", "held"]
                held = (await connection.execute(HELD, {"states": states})).all()
            self._set(waiting, held)

    def _set(self, waiting: Any, held: Any) -> None:
        for gauge in (self._length, self._later, self._oldest, self._states):
            gauge.clear()
        for row in waiting:
            self._length.labels(row.queue, row.priority).set(row.due)
            self._later.labels(row.queue, row.priority).set(row.waiting - row.due)
            self._oldest.labels(row.queue, row.priority).set(max(row.oldest, 0.0))
        for row in held:
            self._states.labels(row.queue, row.state).set(row.held)
