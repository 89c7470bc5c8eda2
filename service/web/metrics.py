"""Prometheus metrics of the API: its requests, and what waits in the ledger.

The ledger is asked at most every 5 seconds, whoever scrapes: two statements on partial indexes.
"""

import asyncio
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.health.checks import Finding

BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
LEDGER_EVERY = 5.0  # seconds

QUEUES = text("SELECT queue, priority, due, scheduled, oldest FROM ledger_depths() WHERE due + scheduled > 0")
KEPT = text("SELECT queue, state, held FROM ledger_kept()")


class HttpMetrics(Collector):
    """Counts and times requests; the labels are the method, the route's template and the status, never an id.

    Plain numbers of one loop: the client library's locks cost more than a request's line in the log.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._active = 0
        self._counts: dict[tuple[str, str, int], int] = {}
        self._times: dict[tuple[str, str], list[float]] = {}
        registry.register(self)

    def begin(self) -> None:
        """Note that a request came in."""
        self._active += 1

    def end(self, method: str, route: str, status: int, took: float) -> None:
        """Note that a request was answered after `took` seconds; status 499 is a caller that left."""
        self._active -= 1
        if method not in METHODS:
            method = "other"
        counts, place = self._counts, (method, route, status)
        counts[place] = counts.get(place, 0) + 1
        times = self._times.get((method, route))
        if times is None:
            times = self._times[method, route] = [0.0] * (len(BUCKETS) + 2)
        times[bisect_left(BUCKETS, took)] += 1
        times[-1] += took

    def collect(self) -> Iterator[Metric]:
        """Give the metrics as they stand."""
        yield GaugeMetricFamily("http_requests_active", "Requests being answered.", self._active)
        requests = CounterMetricFamily("http_requests", "Requests answered.", labels=["method", "route", "status"])
        for (method, route, status), count in self._counts.items():
            requests.add_metric([method, route, str(status)], count)
        yield requests
        durations = HistogramMetricFamily(
            "http_request_duration_seconds", "Time to answer.", labels=["method", "route"]
        )
        for labels, (*buckets, total) in self._times.items():
            edges = [*map(str, BUCKETS), "+Inf"]
            durations.add_metric(list(labels), list(zip(edges, accumulate(buckets), strict=True)), total)
        yield durations


METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


class FindingMetrics:
    """Gauge of the findings of the operational checks: 1 for each that there is now."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._findings = Gauge(
            "callboard_findings",
            "Findings of the operational checks, as `callboard status` prints them.",
            ["name", "severity"],
            registry=registry,
        )

    def set(self, findings: Iterable[Finding]) -> None:
        """Replace the findings."""
        self._findings.clear()
        for finding in findings:
            self._findings.labels(finding.name, finding.severity).inc()


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
                held = (await connection.execute(KEPT)).all()
            self._set(waiting, held)

    def _set(self, waiting: Any, held: Any) -> None:
        for gauge in (self._length, self._later, self._oldest, self._states):
            gauge.clear()
        for row in waiting:
            self._length.labels(row.queue, row.priority).set(row.due)
            self._later.labels(row.queue, row.priority).set(row.scheduled)
            self._oldest.labels(row.queue, row.priority).set(max(row.oldest or 0.0, 0.0))
        for row in held:
            self._states.labels(row.queue, row.state).set(row.held)
