"""Metrics bear celery-exporter's names, with labels that stay few; each end of an attempt is counted once."""

import pytest
from prometheus_client import REGISTRY, CollectorRegistry
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.testing import capture_logs

from callboard_workers import Backoff, Dead, Snooze, Uncertain, actor, current
from callboard_workers.testing import Workbench
from service.web.metrics import LedgerMetrics

TASKS = ("sent", "received", "started", "succeeded", "failed", "retried", "revoked", "rejected", "dead", "redelivered")
WORKER = {
    **{f"celery_task_{word}": {"name", "queue_name"} for word in TASKS},
    "celery_task_failed": {"name", "queue_name", "exception"},
    "celery_task_retried": {"name", "queue_name", "exception"},
    "celery_task_runtime": {"name", "queue_name"},
    "celery_task_queue_wait_time": {"name", "queue_name"},
    "celery_worker_up": set(),
    "celery_worker_tasks_active": set(),
    "celery_event_loop_lag_seconds": set(),
}
API = {name: {"queue_name", "priority"} for name in ("celery_queue_length", "celery_queue_oldest_age_seconds")}


def labels_of(registry: CollectorRegistry) -> dict[str, set[str]]:
    """The labels of each metric of ours."""
    collectors = {id(each): each for each in registry._names_to_collectors.values()}.values()
    ours = [each for each in collectors if getattr(each, "_name", "").startswith("celery_")]
    return {each._name: set(each._labelnames) for each in ours}  # type: ignore[attr-defined]


def test_a_worker_has_the_names_that_dashboards_ask_for() -> None:
    found = labels_of(REGISTRY)
    assert {name: found.get(name) for name in WORKER} == WORKER
    assert set().union(*found.values()) <= {"name", "queue_name", "exception"}  # never an id


def test_the_api_tells_of_the_queues() -> None:
    registry = CollectorRegistry()
    LedgerMetrics(registry)
    found = labels_of(registry)
    assert {name: found.get(name) for name in API} == API


@pytest.mark.usefixtures("declared")
@pytest.mark.parametrize("durable", [True, False])
async def test_each_attempt_is_one_line_and_one_count(bench: Workbench, durable: bool) -> None:
    name = f"m.many{durable}".lower()

    @actor(name=name, backoff=Backoff(min=1, max=1))
    async def many(end: str) -> None:
        if end == "retry" and current().attempt == 1:
            raise OSError("x")
        if end == "snooze" and current().snoozes == 0:
            raise Snooze(1)
        if end == "dead":
            raise Dead("enough")
        if end == "uncertain":
            raise Uncertain("who knows")

    with capture_logs() as lines:
        for end in ("done", "retry", "snooze", "dead", "uncertain"):
            if durable:
                async with AsyncSession(bench.runtime.engine) as session:
                    await many.enqueue(session, end)
                    await session.commit()
            else:
                await many.send(end)
        await bench.finish()
    ends = [line for line in lines if line["event"].startswith("task_") and line.get("task_name") == name]
    assert sorted(line["event"] for line in ends) == [
        "task_dead",
        *["task_done"] * 3,
        "task_retry",
        "task_snooze",
        "task_uncertain",
    ]
    for line in ends:
        assert line["run_ms"] >= 0
        assert ("wait_ms" in line) is durable  # only Postgres knows when a message was due
        assert line.keys() >= {"task_id", "attempt"}
    labels = {"name": name, "queue_name": "default"}

    def count(metric: str, **more: str) -> float | None:
        return REGISTRY.get_sample_value(metric, {**labels, **more})

    assert [count(f"celery_task_{word}_total") for word in ("sent", "started", "succeeded", "dead", "uncertain")] == [
        5,
        7,
        3,
        1,
        1,
    ]
    assert count("celery_task_retried_total", exception="OSError") == 1
    assert count("celery_task_failed_total", exception="Dead") == 1
    assert count("celery_task_runtime_count") == 7
    assert count("celery_task_queue_wait_time_count") == (7 if durable else 0)
