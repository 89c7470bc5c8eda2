"""Celery's result backend: what a stock client asks for, it finds, whoever ran the task."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from celery import Celery, chord, group
from celery.exceptions import TaskError, TaskRevokedError

from service.dev.stack import Stack
from tests.wire.process import Worker, client, eventually

CARD = "4111-1111-1111-1111"  # no id, time or port in a log looks like it


@pytest.fixture(scope="module")
def backend(stack: Stack) -> str:
    return stack.redis_url.replace("/0", "/3")


@pytest.fixture(scope="module")
def worker(stack: Stack, backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with Worker(stack.redis_url, tmp_path_factory.mktemp("results"), RESULTS=backend) as running:
        yield running


@pytest.fixture(scope="module")
def stock(stack: Stack, backend: str) -> Celery:
    return client(stack.redis_url, backend=backend)


@pytest.fixture(scope="module")
def store(backend: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(backend) as connection:
        yield connection


def send(stock: Celery, name: str, *args: Any, **options: Any) -> Any:
    return stock.send_task(name, args=args, queue="default", **options)


def key(id: str) -> str:
    return f"celery-task-meta-{id}"


def test_many_results_each_reach_who_asked(worker: Worker, stock: Celery) -> None:
    sent = [send(stock, "demo.add", n, n) for n in range(200)]
    assert [result.get(timeout=60) for result in sent] == [n + n for n in range(200)]


def test_a_result_is_what_celery_would_have_stored(worker: Worker, stock: Celery, store: redis.Redis) -> None:
    ours = send(stock, "demo.add", 2, 3)
    theirs = send(stock, "demo.plain_add", 2, 3)  # a plain task: Celery's own tracer and backend store it
    assert ours.get(timeout=60) == theirs.get(timeout=60) == 5
    mine, its = json.loads(store.get(key(ours.id)) or ""), json.loads(store.get(key(theirs.id)) or "")
    assert list(mine) == list(its)
    changing = ("task_id", "date_done")
    assert {k: v for k, v in mine.items() if k not in changing} == {k: v for k, v in its.items() if k not in changing}
    assert mine["date_done"][-6:] == its["date_done"][-6:]


def test_results_are_kept_for_as_long_as_the_actor_says(worker: Worker, stock: Celery, store: redis.Redis) -> None:
    kept, usual = send(stock, "demo.add", 1, 1), send(stock, "demo.plain_add", 1, 1)
    kept.get(timeout=60), usual.get(timeout=60)
    assert 0 < store.ttl(key(kept.id)) <= 60
    assert 60 < store.ttl(key(usual.id)) <= 7200  # result_expires


def test_values_json_lacks_come_back_as_they_were(worker: Worker, stock: Celery) -> None:
    values = send(stock, "demo.values").get(timeout=60)
    assert (str(values["id"]), values["at"].year, str(values["price"])) == (
        "00000000-0000-0000-0000-000000000001",
        2026,
        "1.50",
    )


def test_a_result_nobody_can_write_down_is_a_failure_that_says_so(worker: Worker, stock: Celery) -> None:
    with pytest.raises(Exception, match="cannot be stored"):
        send(stock, "demo.unstorable").get(timeout=60)


def test_a_failure_and_a_retry_are_seen(worker: Worker, stock: Celery) -> None:
    with pytest.raises(Exception, match="arguments do not fit"):
        send(stock, "demo.add", 2, "x").get(timeout=60)
    trying = send(stock, "demo.trying", f"t{uuid4().hex[:6]}")
    eventually(lambda: trying.state == "RETRY", "it is to be retried")


def test_what_expired_is_told_as_revoked(worker: Worker, stock: Celery) -> None:
    with pytest.raises(TaskRevokedError):
        send(stock, "demo.add", 2, 2, countdown=0.5, expires=0.1).get(timeout=60)


def test_what_is_revoked_while_it_runs_is_told_as_revoked(worker: Worker, stock: Celery) -> None:
    tag = f"r{uuid4().hex[:6]}"
    running = send(stock, "demo.trying", tag, 60.0)
    worker.wait_for(f"start {tag}")
    running.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        running.get(timeout=60)


def test_nothing_is_stored_for_who_does_not_want_it(worker: Worker, stock: Celery, store: redis.Redis) -> None:
    tag = f"i{uuid4().hex[:6]}"
    without = send(stock, "demo.work", tag)  # the actor declares no result
    ignored = send(stock, "demo.add", 1, 2, ignore_result=True)
    worker.wait_for(f"end {tag}")
    send(stock, "demo.add", 1, 2).get(timeout=60)
    assert not store.exists(key(without.id))
    assert not store.exists(key(ignored.id))
    asked = send(stock, "demo.work", f"{tag}a", ignore_result=False)
    assert asked.get(timeout=60) is None


def test_a_stored_success_is_never_overwritten(worker: Worker, stock: Celery, store: redis.Redis) -> None:
    first = send(stock, "demo.add", 2, 3)
    assert first.get(timeout=60) == 5
    before = store.get(key(first.id))
    send(stock, "demo.add", 40, 2, task_id=first.id)
    send(stock, "demo.add", 2, "x", task_id=first.id)
    assert send(stock, "demo.add", 0, 0).get(timeout=60) == 0  # results are stored in the order they came
    assert store.get(key(first.id)) == before


def test_groups_and_chords_gather_results(worker: Worker, stock: Celery) -> None:
    add = stock.signature("demo.add", queue="default")
    many = group(add.clone([n, 1]) for n in range(20)).apply_async()
    assert many.get(timeout=60) == [n + 1 for n in range(20)]
    total = stock.signature("demo.total", queue="default")
    assert chord([add.clone([n, n]) for n in range(20)], total).apply_async().get(timeout=60) == 380


def test_started_is_told_where_the_task_tracks_it(worker: Worker, stock: Celery) -> None:
    tag = f"s{uuid4().hex[:6]}"
    sent = send(stock, "demo.tracked", tag)
    worker.wait_for(f"start {tag}")
    eventually(lambda: sent.state == "STARTED", "it has started")
    assert sent.info["hostname"] == worker.node
    sent.revoke(terminate=True)


def test_results_wait_for_a_backend_that_is_full_and_the_message_with_them(
    worker: Worker, stock: Celery, store: redis.Redis
) -> None:
    store.config_set("maxmemory", 1)
    try:
        tag = f"f{uuid4().hex[:6]}"
        with redis.Redis.from_url(str(stock.conf.broker_url)) as broker:
            sent = stock.AsyncResult(str(uuid4()))
            broker.config_set("maxmemory", 0)
            stock.send_task("demo.trying", args=[tag, 4.0], queue="default", task_id=sent.id)
            worker.wait_for(f"start {tag}")
            broker.config_set("maxmemory", 1)
            eventually(lambda: "results_delayed" in worker.log.read_text(), "it waits")
            held = [name for name in broker.scan_iter("workers:unacked:*") if broker.hlen(name)]
            assert held
    finally:
        store.config_set("maxmemory", 0)
    assert sent.get(timeout=60) == tag


def test_a_stored_error_keeps_its_class_and_no_argument_reaches_the_log(
    worker: Worker, stock: Celery, store: redis.Redis
) -> None:
    alone = send(stock, "demo.buy", CARD)
    [member] = group([stock.signature("demo.buy", args=[CARD], queue="default")]).apply_async()
    for result in (alone, member):
        with pytest.raises(Exception, match="nothing left") as raised:
            result.get(timeout=60)
        assert type(raised.value).__name__ == "OutOfStock"
        found = json.loads(store.get(key(result.id)) or "")["result"]
        assert (found["exc_type"], found["exc_module"]) == ("OutOfStock", "tests.wire.demo")
        assert found["exc_message"] == ["nothing left", len(f"card number {CARD}")]
    log = worker.log.read_text()
    assert "OutOfStock" in log
    assert CARD not in log


def test_the_result_of_a_message_that_killed_its_workers_is_a_failure(
    stack: Stack, stock: Celery, store: redis.Redis, backend: str, tmp_path: Path
) -> None:
    fragile = Worker(stack.redis_url, tmp_path, "-Q", "fragile", name="w2", RESULTS=backend)
    with redis.Redis.from_url(stack.redis_url) as server:
        server.delete("workers:dead")
        sent = stock.send_task("demo.fragile", args=["f"], queue="fragile")
        silent = stock.send_task("demo.fragile", args=["s"], queue="fragile", ignore_result=True)
        deaths = 0
        with fragile.start(until_ready=False):
            while server.llen("workers:dead") < 2:
                eventually(lambda: not fragile.alive or server.llen("workers:dead") == 2, "it dies of them, or is rid")
                if not fragile.alive:
                    deaths += 1
                    assert deaths <= 8
                    fragile.start(until_ready=False)
            with pytest.raises(TaskError, match="its worker died 2 times while it ran"):
                sent.get(timeout=60)
        assert sent.state == "FAILURE"
        assert not store.exists(key(silent.id))
        server.delete("workers:dead")
