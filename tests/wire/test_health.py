"""A worker's HTTP answers: alive, ready, measured; and honest when it is not."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from service.dev.ports import free_port
from service.dev.stack import Stack
from tests.wire.process import OURS, Worker, client, eventually

WORK = r'name="demo.work",queue_name="default"'
SAMPLES = (
    rf"celery_task_succeeded_total\{{{WORK}\}}",
    rf"celery_task_runtime_count\{{{WORK}\}}",
    r'celery_task_rejected_total\{name="unknown",queue_name="default"\}',
    "celery_worker_up",
    "celery_worker_tasks_active",
    "celery_event_loop_lag_seconds",
)
"""What a scrape of the worker shows, as regular expressions."""


def get(port: int, path: str, timeout: float = 20.0) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_worker_tells_that_it_is_alive_ready_and_how_much_it_does(
    stack: Stack, redis_url: str, tmp_path: Path
) -> None:
    port = free_port()
    with Worker(redis_url, tmp_path, options={**OURS, "health_port": port}) as worker:
        client(redis_url).send_task("demo.work", args=["a"], queue="default")
        worker.wait_for("end a")
        assert get(port, "/live")[0] == 200
        eventually(lambda: get(port, "/ready")[0] == 200, "it is ready")
        client(redis_url).send_task("nobody.knows", queue="default")
        for sample in SAMPLES:
            pattern = re.compile(rf"^{sample} [0-9.e-]+$", re.MULTILINE)
            eventually(lambda: pattern.search(get(port, "/metrics")[1]), f"the sample {sample}")  # noqa: B023
        assert get(port, "/elsewhere")[0] == 404
        stack.valkey.pause()
        try:
            eventually(lambda: get(port, "/ready")[0] == 503, "without the broker it is not ready")
            assert json.loads(get(port, "/ready")[1])["broker"] is False
            assert get(port, "/live")[0] == 200
        finally:
            stack.valkey.resume()


def test_a_loop_that_stands_still_does_not_answer(redis_url: str, tmp_path: Path) -> None:
    port = free_port()
    with Worker(redis_url, tmp_path, options={**OURS, "health_port": port}) as worker:
        client(redis_url).send_task("demo.block", args=["b", 5.0], queue="default")
        worker.wait_for("start b")
        with pytest.raises(OSError, match="timed out"):
            get(port, "/live", 0.5)
        worker.wait_for("end b")
        assert get(port, "/live")[0] == 200
