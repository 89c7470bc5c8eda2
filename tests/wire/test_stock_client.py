"""Stock Celery programs with our worker: whoever knows Celery knows how to use and operate it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from celery import Celery, chain, chord, group

from service.dev.stack import Stack
from tests.wire.process import OURS, ROOT, STOCK, Worker, client, eventually, inspect


@pytest.fixture(scope="module", params=[OURS, STOCK], ids=["our-consumer", "celery-consumer"])
def worker(request: pytest.FixtureRequest, stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp("worker")
    results = stack.redis_url.replace("/0", "/2")
    with Worker(stack.redis_url, folder, "-Q", "default,urgent", options=request.param, RESULTS=results) as running:
        yield running


@pytest.fixture(scope="module")
def stock(stack: Stack) -> Celery:
    return client(stack.redis_url, backend=stack.redis_url.replace("/0", "/2"))


@pytest.fixture
def tag() -> str:
    return uuid4().hex[:8]


def test_a_task_sent_by_name_runs_our_actor(worker: Worker, stock: Celery, tag: str) -> None:
    stock.send_task("demo.work", args=[tag], queue="default")
    stock.send_task("demo.urgent", kwargs={"tag": f"{tag}u"}, queue="urgent", priority=0)
    worker.wait_for(f"end {tag}", f"start {tag}u")


def test_a_countdown_is_kept(worker: Worker, stock: Celery, tag: str) -> None:
    started = time.monotonic()
    stock.send_task("demo.work", args=[tag], queue="default", countdown=1)
    worker.wait_for(f"end {tag}")
    assert time.monotonic() - started >= 0.9


def test_what_has_expired_never_runs(worker: Worker, stock: Celery, tag: str) -> None:
    stock.send_task("demo.work", args=[tag], queue="default", countdown=0.6, expires=0.2)
    stock.send_task("demo.work", args=[f"{tag}b"], queue="default", countdown=1)
    worker.wait_for(f"end {tag}b")
    assert not worker.notes()[f"start {tag}"]


def test_errors_are_retried_with_backoff_until_they_end(worker: Worker, stock: Celery, tag: str) -> None:
    stock.send_task("demo.flaky", args=[tag, 3], queue="default")
    worker.wait_for(f"attempt3 {tag}")
    assert [worker.notes()[f"attempt{n} {tag}"] for n in (1, 2, 3, 4)] == [1, 1, 1, 0]


def test_a_snooze_counts_no_attempt_and_retries_have_an_end(worker: Worker, stock: Celery, tag: str) -> None:
    stock.send_task("demo.sleepy", args=[tag], queue="default")
    stock.send_task("demo.again", args=[f"{tag}a"], queue="default")
    worker.wait_for(f"attempt2 {tag}a")
    eventually(lambda: worker.notes()[f"attempt1 {tag}"] == 2, "slept and ran as the first attempt")
    time.sleep(0.3)
    assert worker.notes()[f"attempt3 {tag}a"] == 0


def test_results_reach_a_stock_client(worker: Worker, stock: Celery) -> None:
    assert stock.send_task("demo.add", args=[2, 3], queue="default").get(timeout=60) == 5
    with pytest.raises(Exception, match="arguments do not fit"):
        stock.send_task("demo.add", args=[2, "x"], queue="default").get(timeout=60)


def test_canvas_is_celerys_own(worker: Worker, stock: Celery) -> None:
    add = stock.signature("demo.add", queue="default")
    assert chain(add.clone([1, 2]), add.clone([10])).apply_async().get(timeout=60) == 13
    total = stock.signature("demo.total", queue="default")
    assert chord([add.clone([n, n]) for n in range(3)], total).apply_async().get(timeout=60) == 6
    assert group(add.clone([n, 1]) for n in range(3)).apply_async().get(timeout=60) == [1, 2, 3]


def test_a_plain_async_task_keeps_its_own_request(worker: Worker, stock: Celery, tag: str) -> None:
    sent = [stock.send_task("demo.chatty", args=[f"{tag}{n}"], queue="default") for n in range(10)]
    assert [result.get(timeout=60) for result in sent] == [result.id for result in sent]


def test_autoretry_sees_what_an_async_task_raises(worker: Worker, stock: Celery, tag: str) -> None:
    stock.send_task("demo.tired", args=[tag], queue="default")
    worker.wait_for(f"attempt3 {tag}")


def test_a_blocking_task_does_not_block_the_others(worker: Worker, stock: Celery, tag: str) -> None:
    for n in range(5):
        stock.send_task("demo.plain", args=[f"{tag}{n}"], queue="default")
    stock.send_task("demo.work", args=[tag], queue="default")
    worker.wait_for(f"end {tag}", *(f"end {tag}{n}" for n in range(5)))


def test_the_soft_limit_cancels_and_the_hard_limit_frees_the_slot(worker: Worker, stock: Celery, tag: str) -> None:
    softly = stock.send_task("demo.soft", args=[tag], queue="default")
    hardly = stock.send_task("demo.hard", args=[f"{tag}h"], queue="default")
    with pytest.raises(Exception, match="SoftTimeLimitExceeded"):
        softly.get(timeout=60)
    with pytest.raises(Exception, match="TimeLimitExceeded"):
        hardly.get(timeout=60)
    worker.wait_for(f"cancelled {tag}")
    eventually(lambda: not inspect(stock, worker).active()[worker.node], "nothing runs")


def test_the_soft_limit_is_raised_in_a_task_on_a_thread(worker: Worker, stock: Celery, tag: str) -> None:
    assert stock.send_task("demo.soft_thread", args=[tag], queue="default").get(timeout=60) == "cleaned up"


@pytest.mark.parametrize("task", ["demo.late", "demo.late_loop"])
def test_what_ends_after_its_hard_limit_stays_a_failure(worker: Worker, stock: Celery, tag: str, task: str) -> None:
    sent = stock.send_task(task, args=[tag], queue="default")
    with pytest.raises(Exception, match="TimeLimitExceeded"):
        sent.get(timeout=60)
    worker.wait_for(f"late {tag}")
    assert stock.send_task("demo.plain_add", args=[1, 1], queue="default").get(timeout=60) == 2
    time.sleep(0.3)
    assert stock.AsyncResult(sent.id).state == "FAILURE"


def test_a_time_limit_does_not_count_the_wait_for_a_thread(worker: Worker, stock: Celery, tag: str) -> None:
    tags = [f"{tag}{n}" for n in range(50)]  # the threads are 32, the slots 50
    for each in tags:
        stock.send_task("demo.slow", args=[each, 2.5], queue="default")
    worker.wait_for(*(f"end {each}" for each in tags))
    assert "Hard time limit (4s) exceeded" not in worker.log.read_text()


def test_inspect_answers(worker: Worker, stock: Celery, tag: str) -> None:
    sent = stock.send_task("demo.work", args=[tag, 60.0], queue="default")
    worker.wait_for(f"start {tag}")
    ask = inspect(stock, worker)
    assert ask.ping() == {worker.node: {"ok": "pong"}}
    assert "demo.work" in ask.registered()[worker.node]
    [active] = ask.active()[worker.node]
    assert (active["id"], active["name"], active["type"]) == (sent.id, "demo.work", "demo.work")
    assert (active["args"], active["hostname"], active["worker_pid"]) == ([tag, 60.0], worker.node, worker.pid)
    assert active["delivery_info"]["routing_key"] == "default"
    assert ask.query_task(sent.id)[worker.node][sent.id] == ["active", active]
    stats = ask.stats()[worker.node]
    assert stats["pool"]["max-concurrency"] == 50
    assert stats["pool"]["processes"] == [worker.pid]
    assert stats["total"]["demo.work"] >= 1
    assert {queue["name"] for queue in ask.active_queues()[worker.node]} == {"default", "urgent"}
    stock.control.revoke(sent.id, terminate=True)
    eventually(lambda: not ask.active()[worker.node], "the task is gone")
    assert not worker.notes()[f"end {tag}"]


def test_what_is_revoked_before_it_starts_never_runs(worker: Worker, stock: Celery, tag: str) -> None:
    sent = uuid4()
    stock.control.revoke(str(sent))
    eventually(lambda: str(sent) in inspect(stock, worker).revoked()[worker.node], "revoked")
    stock.send_task("demo.work", args=[tag], queue="default", task_id=str(sent))
    stock.send_task("demo.work", args=[f"{tag}b"], queue="default")
    worker.wait_for(f"end {tag}b")
    assert not worker.notes()[f"start {tag}"]


def test_a_scheduled_task_is_listed(worker: Worker, stock: Celery, tag: str) -> None:
    sent = stock.send_task("demo.work", [tag], {"seconds": 0.5}, queue="default", countdown=300, priority=3)
    ask = inspect(stock, worker)
    listed = eventually(lambda: ask.scheduled()[worker.node], "something is scheduled")
    [entry] = [entry for entry in listed if entry["request"]["id"] == sent.id]
    assert entry.keys() == {"eta", "priority", "request"}
    assert entry["request"] == {
        "id": sent.id,
        "name": "demo.work",
        "args": [tag],
        "kwargs": {"seconds": 0.5},
        "type": "demo.work",
        "hostname": worker.node,
        "time_start": None,
        "acknowledged": False,
        "delivery_info": {"exchange": "", "routing_key": "default", "priority": 3, "redelivered": False},
        "worker_pid": None,
    }


def test_queues_come_and_go_by_remote_control(worker: Worker, stock: Celery, tag: str) -> None:
    stock.control.add_consumer(f"extra{tag}", destination=[worker.node], reply=True, timeout=30, limit=1)
    stock.send_task("demo.work", args=[tag], queue=f"extra{tag}")
    worker.wait_for(f"end {tag}")
    stock.control.cancel_consumer(f"extra{tag}", destination=[worker.node], reply=True, timeout=30, limit=1)
    names = lambda: {q["name"] for q in inspect(stock, worker).active_queues()[worker.node]}  # noqa: E731
    eventually(lambda: f"extra{tag}" not in names(), "the queue is gone")


def test_a_rate_limit_set_by_remote_control_holds(worker: Worker, stock: Celery, tag: str) -> None:
    stock.control.rate_limit("demo.work", "2/s", destination=[worker.node], reply=True, timeout=30, limit=1)
    try:
        started = time.monotonic()
        for n in range(5):
            stock.send_task("demo.work", args=[f"{tag}{n}"], queue="default")
        worker.wait_for(*(f"end {tag}{n}" for n in range(5)))
        assert time.monotonic() - started > 1.5
    finally:
        stock.control.rate_limit("demo.work", 0, destination=[worker.node], reply=True, timeout=30, limit=1)


def test_the_pool_grows_and_shrinks_by_remote_control(worker: Worker, stock: Celery) -> None:
    size = lambda: inspect(stock, worker).stats()[worker.node]["pool"]["max-concurrency"]  # noqa: E731
    stock.control.pool_grow(3, destination=[worker.node], reply=True, timeout=30, limit=1)
    assert size() == 53
    stock.control.pool_shrink(3, destination=[worker.node], reply=True, timeout=30, limit=1)
    assert size() == 50


def test_beat_fires_and_the_worker_runs_it(worker: Worker, stock: Celery, tmp_path: Path) -> None:
    before = worker.notes()["end tick"]
    beat = [sys.executable, "-m", "celery", "-A", "tests.wire.demo", "beat", "-s", str(tmp_path / "beat"), "--pidfile="]
    process = subprocess.Popen(beat, cwd=ROOT, env=worker.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: worker.notes()["end tick"] > before + 1, "two ticks have run")
    finally:
        process.terminate()
        process.wait(60)
