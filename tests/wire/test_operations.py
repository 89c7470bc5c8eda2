"""What an operator of Celery does with a worker, done to ours: asked, told, watched, listened to, mixed with others."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from celery import Celery
from kombu import Connection

from callboard_workers.message import Message
from callboard_workers.redis.protocol import encode
from service.dev.stack import Stack
from tests.wire.process import ROOT, Worker, client, eventually, inspect


@pytest.fixture(scope="module")
def url(stack: Stack) -> str:
    """A database of this file's worker alone; other tests here empty and fill the first."""
    return stack.redis_url.replace("/0", "/5")


@pytest.fixture(scope="module")
def worker(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp("operations")
    with Worker(url, folder, "-E", "-Q", "default", app="tests.wire.listening") as running:
        yield running


@pytest.fixture(scope="module")
def stock(url: str) -> Celery:
    return client(url, task_send_sent_event=True)


@pytest.fixture
def tag() -> str:
    return uuid4().hex[:8]


def send(stock: Celery, name: str, *args: Any, **options: Any) -> str:
    return str(stock.send_task(name, args=args, queue="default", **options).id)


def tell(stock: Celery, worker: Worker, command: str, **arguments: Any) -> Any:
    [answer] = stock.control.broadcast(
        command, arguments=arguments, destination=[worker.node], reply=True, timeout=60, limit=1
    )
    return answer[worker.node]


def test_every_question_of_inspect_is_answered(worker: Worker, stock: Celery, tag: str) -> None:
    running = send(stock, "demo.work", tag, 60.0)
    worker.wait_for(f"start {tag}")
    ask = inspect(stock, worker)
    for question in ("active", "active_queues", "clock", "conf", "ping", "registered", "report", "reserved"):
        assert worker.node in getattr(ask, question)(), question
    for question in ("revoked", "scheduled", "stats"):
        assert worker.node in getattr(ask, question)(), question
    assert ask.conf()[worker.node]["task_acks_late"] is True
    assert "celery:" in ask.report()[worker.node]["ok"]
    assert [task["id"] for task in ask.active()[worker.node]] == [running]
    info = ask.query_task(running)[worker.node][running]
    assert (info[0], info[1]["name"], info[1]["hostname"]) == ("active", "demo.work", worker.node)
    assert info[1]["time_start"] is not None
    assert info[1]["delivery_info"]["routing_key"] == "default"
    tell(stock, worker, "terminate", signal="TERM", task_id=running)
    eventually(lambda: not ask.active()[worker.node], "it is gone")


def test_a_time_limit_set_by_remote_control_holds(worker: Worker, stock: Celery, tag: str) -> None:
    assert "ok" in tell(stock, worker, "time_limit", task_name="demo.work", soft=0.3, hard=20.0)
    try:
        send(stock, "demo.work", tag, 60.0)
        worker.wait_for(f"start {tag}")
        eventually(lambda: not inspect(stock, worker).active()[worker.node], "its limit has passed")
        assert not worker.notes()[f"end {tag}"]
    finally:
        tell(stock, worker, "time_limit", task_name="demo.work", soft=None, hard=None)
    send(stock, "demo.work", f"{tag}b", 0.5)
    worker.wait_for(f"end {tag}b")


def test_each_end_has_its_signals(worker: Worker, stock: Celery, tag: str) -> None:
    good = send(stock, "demo.work", tag)
    bad = send(stock, "demo.fail", tag)
    again = send(stock, "demo.flaky", tag, 2)
    late = send(stock, "demo.work", f"{tag}l", countdown=0.5, expires=0.1)
    stopped = send(stock, "demo.work", f"{tag}s", 60.0)
    worker.wait_for(f"start {tag}s")
    stock.control.revoke(stopped, terminate=True)
    worker.wait_for(
        f"prerun:{good} {tag}",
        f"postrun:{good}:SUCCESS {tag}",
        "success:demo.work None",
        f"failure:{bad}:KeyError:True demo.fail",
        f"postrun:{bad}:FAILURE {tag}",
        f"retry:{again}:ValueError demo.flaky",
        f"postrun:{again}:RETRY {tag}",
        f"postrun:{again}:SUCCESS {tag}",
        f"revoked:{late}:False:True demo.work",
        f"revoked:{stopped}:True:False demo.work",
    )
    assert worker.notes()[f"prerun:{good} {tag}"] == 1


def test_every_event_of_a_task_is_told(worker: Worker, stock: Celery, tag: str) -> None:
    heard: list[dict[str, Any]] = []
    with Connection(str(stock.conf.broker_url)) as connection:
        receiver = stock.events.Receiver(connection, handlers={"*": heard.append})
        listening = threading.Thread(target=receiver.capture, kwargs={"wakeup": True}, daemon=True)
        listening.start()
        try:
            eventually(lambda: any(event["type"] == "worker-heartbeat" for event in heard), "the worker's heart")
            ids = {
                "good": send(stock, "demo.work", tag),
                "bad": send(stock, "demo.fail", tag),
                "again": send(stock, "demo.flaky", tag, 2),
            }

            def told(name: str) -> list[str]:
                return [event["type"] for event in tuple(heard) if event.get("uuid") == ids[name]]

            eventually(lambda: told("again")[-1:] == ["task-succeeded"], "the one that was retried")
            eventually(lambda: "task-failed" in told("bad"), "the one that failed")
        finally:
            receiver.should_stop = True
            listening.join(20)
    assert sorted(told("good")) == ["task-received", "task-sent", "task-started", "task-succeeded"]
    assert sorted(told("bad")) == ["task-failed", "task-received", "task-sent", "task-started"]
    assert told("again").count("task-retried") == 1
    [received] = [each for each in heard if each.get("uuid") == ids["good"] and each["type"] == "task-received"]
    assert (received["name"], received["hostname"]) == ("demo.work", worker.node)


def test_celery_events_shows_them(worker: Worker, stock: Celery, tag: str, tmp_path: Path) -> None:
    dump = tmp_path / "events"
    command = [sys.executable, "-u", "-m", "celery", "-A", "tests.wire.demo", "events", "--dump"]
    with dump.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=worker.env, stdout=output, stderr=output)
    try:
        eventually(lambda: "worker-heartbeat" in dump.read_text() or "heartbeat" in dump.read_text(), "it listens")
        sent = send(stock, "demo.work", tag)
        eventually(lambda: sent in dump.read_text() and "succeeded" in dump.read_text(), "it shows the task")
    finally:
        process.kill()
        process.wait(60)


def test_a_stock_worker_runs_our_messages(redis_url: str, tmp_path: Path, tag: str) -> None:
    environ = {**os.environ, "REDIS_URL": redis_url, "JOURNAL": str(tmp_path / "journal")}
    command = [sys.executable, "-m", "celery", "-A", "tests.wire.plain", "worker", "-P", "solo", "-Q", "default"]
    with redis.Redis.from_url(redis_url) as server:
        server.lpush("default\x06\x166", encode(Message(actor="demo.work", args=(tag,), kwargs={"seconds": 0.0})))
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=log, stderr=log)
        try:
            found = lambda: (tmp_path / "journal").exists() and tag in (tmp_path / "journal").read_text()  # noqa: E731
            eventually(found, "Celery's own worker has run it")
        finally:
            process.kill()
            process.wait(60)


def test_shutdown_by_remote_control_is_warm(redis_url: str, tmp_path: Path) -> None:
    stock = client(redis_url)
    with Worker(redis_url, tmp_path) as worker:
        send(stock, "demo.work", "w", 1.0)
        worker.wait_for("start w")
        stock.control.shutdown(destination=[worker.node])
        assert worker.process is not None
        assert worker.process.wait(60) == 0
        assert worker.notes()["end w"] == 1
