"""Flower, as it comes, watches our worker."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.dev.ports import free_port
from tests.wire.process import ROOT, Worker, client, eventually


@pytest.fixture
def worker(redis_url: str, tmp_path: Path) -> Iterator[Worker]:
    with Worker(redis_url, tmp_path) as running:
        yield running


def test_flower_lists_the_worker_and_its_task(worker: Worker, redis_url: str, tmp_path: Path) -> None:
    stock = client(redis_url)
    port = free_port()
    arguments = ["flower", f"--port={port}", "--address=127.0.0.1", "--unauthenticated-api"]
    env = {**worker.env, "FLOWER_UNAUTHENTICATED_API": "true"}
    command = [sys.executable, "-m", "celery", "-A", "tests.wire.demo", *arguments]
    with (tmp_path / "flower.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log)
    try:
        read = lambda path: urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30).read().decode()  # noqa: E731

        def shows(path: str, text: str) -> bool:
            try:
                return text in read(path)
            except OSError:
                return False

        eventually(lambda: shows("/api/workers?refresh=1", worker.node), "Flower lists the worker")
        sent: list[str] = []

        def knows_one() -> bool:  # it asks for events when it has found the worker
            sent.append(stock.send_task("demo.work", args=["a"], queue="default").id)
            time.sleep(0.5)
            return any(shows(f"/api/task/info/{id}", "SUCCESS") for id in sent)

        eventually(knows_one, "Flower knows a task")
    finally:
        process.terminate()
        process.wait(60)
