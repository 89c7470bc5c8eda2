"""What happens to messages without a row when processes, sockets and servers fail: nothing is lost."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from celery import Celery

from callboard_workers.message import Message
from callboard_workers.redis.protocol import encode
from service.dev.stack import Stack
from tests.wire.process import OURS, STOCK, Worker, client, eventually, inspect

LEASE = 1.0


@pytest.fixture
def stock(redis_url: str) -> Celery:
    return client(redis_url)


@pytest.fixture
def server(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as connection:
        yield connection


def send(stock: Celery, count: int, seconds: float = 0.0) -> list[str]:
    tags = [f"t{n}" for n in range(count)]
    for tag in tags:
        stock.send_task("demo.work", args=[tag, seconds], queue="default")
    return tags


def all_ended(worker: Worker, tags: list[str]) -> bool:
    notes = worker.notes()
    return all(notes[f"end {tag}"] for tag in tags)


def starts(worker: Worker, tags: list[str]) -> list[int]:
    notes = worker.notes()
    return [notes[f"start {tag}"] for tag in tags]


def test_a_killed_workers_messages_run_elsewhere_and_only_those_in_flight_run_twice(
    redis_url: str, stock: Celery, tmp_path: Path
) -> None:
    with Worker(redis_url, tmp_path, CONCURRENCY=20) as first, Worker(redis_url, tmp_path, name="w2") as second:
        tags = send(stock, 200, 0.2)
        eventually(lambda: sum(starts(first, tags)) > 60, "they run")
        first.kill()
        eventually(lambda: all_ended(second, tags), "all have ended")
        time.sleep(0.5)
        assert max(starts(second, tags)) <= 2
        assert sum(count == 2 for count in starts(second, tags)) <= 20


def test_sigterm_under_load_loses_nothing_and_runs_nothing_twice(redis_url: str, stock: Celery, tmp_path: Path) -> None:
    options = {**OURS, "lease": 30.0}
    with (
        Worker(redis_url, tmp_path, options=options, CONCURRENCY=20) as first,
        Worker(redis_url, tmp_path, options=options, name="w2") as second,
    ):
        tags = send(stock, 300, 0.1)
        eventually(lambda: sum(starts(first, tags)) > 60, "they run")
        assert first.stop() == 0
        eventually(lambda: all_ended(second, tags), "all have ended")
        assert starts(second, tags) == [1] * 300


def test_shutdown_by_remote_control_is_a_warm_one(redis_url: str, stock: Celery, tmp_path: Path) -> None:
    with Worker(redis_url, tmp_path) as worker:
        tags = send(stock, 3, 0.5)
        eventually(lambda: sum(starts(worker, tags)) == 3, "they run")
        stock.control.shutdown(destination=[worker.node])
        assert worker.process is not None
        assert worker.process.wait(60) == 0
        assert all_ended(worker, tags)


def test_a_key_prefix_is_kept_to(redis_url: str, server: redis.Redis, tmp_path: Path) -> None:
    stock = client(redis_url)
    stock.conf.broker_transport_options = {"global_keyprefix": "p:", "priority_steps": [0, 3, 6, 9]}
    with Worker(redis_url, tmp_path, "-E", PREFIX="p:") as worker:
        stock.send_task("demo.work", args=["a", 3.0], queue="default")
        stock.send_task("demo.again", args=["b"], queue="default")
        worker.wait_for("start a")
        assert inspect(stock, worker).active()[worker.node]
        worker.wait_for("end a", "attempt2 b")
        eventually(lambda: server.llen("p:workers:dead"), "it is with the dead letters")
        assert all(key.startswith(b"p:") for key in server.scan_iter())


def test_autoscale_follows_the_load(redis_url: str, stock: Celery, tmp_path: Path) -> None:
    with Worker(redis_url, tmp_path, "--autoscale=20,2") as worker:
        tags = send(stock, 30, 1.0)
        ask = inspect(stock, worker)
        eventually(lambda: ask.stats()[worker.node]["pool"]["max-concurrency"] > 2, "it has grown")
        eventually(lambda: all_ended(worker, tags), "all have ended")


def test_what_outlasts_the_grace_is_given_back_at_once(
    redis_url: str, stock: Celery, server: redis.Redis, tmp_path: Path
) -> None:
    options = {**OURS, "grace": 0.5, "lease": 60.0}
    with Worker(redis_url, tmp_path, options=options) as first:
        tags = send(stock, 3, 600.0)
        eventually(lambda: sum(starts(first, tags)) == 3, "they run")
        assert first.stop() == 0
    assert server.llen("default") == 3
    assert not server.keys("workers:unacked:*")
    assert not server.zcard("workers:owners")


def test_sigquit_gives_everything_back(redis_url: str, stock: Celery, server: redis.Redis, tmp_path: Path) -> None:
    with Worker(redis_url, tmp_path, options={**OURS, "lease": 60.0}) as worker:
        tags = send(stock, 3, 600.0)
        eventually(lambda: sum(starts(worker, tags)) == 3, "they run")
        worker.signal(signal.SIGQUIT)
        assert worker.process is not None
        worker.process.wait(60)
    assert server.llen("default") == 3


def test_sigquit_cuts_the_grace_of_a_sigterm_short(
    redis_url: str, stock: Celery, server: redis.Redis, tmp_path: Path
) -> None:
    with Worker(redis_url, tmp_path, options={**OURS, "lease": 60.0, "grace": 60.0}) as worker:
        tags = send(stock, 3, 600.0)
        eventually(lambda: sum(starts(worker, tags)) == 3, "they run")
        worker.signal(signal.SIGTERM)
        time.sleep(1)
        assert worker.alive
        worker.signal(signal.SIGQUIT)
        assert worker.process is not None
        worker.process.wait(40)  # less than the grace
    assert server.llen("default") == 3
    assert not server.exists("workers:owners")


def test_redis_killed_and_restarted_disturbs_nothing_that_runs(
    stack: Stack, redis_url: str, stock: Celery, tmp_path: Path
) -> None:
    with Worker(redis_url, tmp_path) as worker:
        tags = send(stock, 20, 3.0)
        eventually(lambda: sum(starts(worker, tags)) == 20, "they run")
        time.sleep(1.2)  # the append-only file is written every second
        stack.valkey.kill()
        time.sleep(1)
        stack.valkey.start()
        eventually(lambda: all_ended(worker, tags), "all have ended")
        stock.send_task("demo.work", args=["after"], queue="default")
        worker.wait_for("end after")
        assert starts(worker, tags) == [1] * 20
        assert worker.alive


def test_sockets_killed_with_tasks_running_run_nothing_twice(
    redis_url: str, server: redis.Redis, tmp_path: Path
) -> None:
    with Worker(redis_url, tmp_path) as worker:
        tags = send(client(redis_url), 20, 2.0)
        eventually(lambda: sum(starts(worker, tags)) == 20, "they run")
        for _ in range(3):
            server.execute_command("CLIENT", "KILL", "TYPE", "normal")
            server.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            time.sleep(0.3)
        eventually(lambda: all_ended(worker, tags), "all have ended")
        server.lpush("default", encode(Message(actor="demo.work", args=("after",))))
        worker.wait_for("end after")
        assert starts(worker, tags) == [1] * 20
        eventually(lambda: pings(redis_url, worker), "remote control is back")


def pings(redis_url: str, worker: Worker) -> bool:
    try:
        return bool(inspect(client(redis_url), worker, 5).ping())
    except client(redis_url).connection().connection_errors:  # our own connections were killed as well
        return False


def test_a_frozen_redis_is_waited_for(stack: Stack, redis_url: str, stock: Celery, tmp_path: Path) -> None:
    with Worker(redis_url, tmp_path) as worker:
        tags = send(stock, 10, 2.0)
        eventually(lambda: sum(starts(worker, tags)) == 10, "they run")
        stack.valkey.pause()
        time.sleep(LEASE * 3)
        stack.valkey.resume()
        stock.send_task("demo.work", args=["after"], queue="default")
        eventually(lambda: all_ended(worker, [*tags, "after"]), "all have ended")
        assert worker.alive


ENDINGS = {
    "frozen, SIGTERM": (True, signal.SIGTERM),
    "frozen, SIGQUIT": (True, signal.SIGQUIT),
    "killed, SIGTERM": (False, signal.SIGTERM),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_worker_without_its_redis_ends_within_its_grace_and_loses_nothing(
    stack: Stack, stock: Celery, server: redis.Redis, tmp_path: Path, ending: str
) -> None:
    """Celery's main thread would wait for a frozen one for minutes, one socket timeout after the other."""
    frozen, how = ENDINGS[ending]
    with Worker(stack.redis_url, tmp_path, options={**OURS, "grace": 1.0}) as worker:
        tags = send(stock, 5, 60.0)
        eventually(lambda: sum(starts(worker, tags)) == 5, "they run")
        if not frozen:
            time.sleep(1.2)  # the append-only file is written every second
        (stack.valkey.pause if frozen else stack.valkey.kill)()
        try:
            worker.signal(how)
            assert worker.process is not None
            assert worker.process.wait(30) == (how == signal.SIGQUIT)
        finally:
            (stack.valkey.resume if frozen else stack.valkey.start)()
        assert ("celery_left_behind" in worker.log.read_text()) is frozen

    def kept() -> int:
        held = [field for key in server.keys("workers:unacked:*") for field in server.hkeys(key)]
        return server.llen("default") + sum(not field.startswith(b"s:") for field in held)

    eventually(lambda: kept() == 5, "they are given back, or run again when the lease is over")


def test_an_emptied_redis_is_worked_on(redis_url: str, stock: Celery, server: redis.Redis, tmp_path: Path) -> None:
    with Worker(redis_url, tmp_path) as worker:
        tags = send(stock, 5, 1.5)
        eventually(lambda: sum(starts(worker, tags)) == 5, "they run")
        server.flushall()
        server.script_flush()
        stock.send_task("demo.work", args=["after"], queue="default")
        eventually(lambda: all_ended(worker, [*tags, "after"]), "all have ended")
        assert starts(worker, tags) == [1] * 5


def test_a_full_redis_is_drained(redis_url: str, stock: Celery, server: redis.Redis, tmp_path: Path) -> None:
    with Worker(redis_url, tmp_path) as worker:
        tags = send(stock, 100, 0.1)
        server.config_set("maxmemory", 1)
        try:
            eventually(lambda: all_ended(worker, tags), "all have ended")
            assert server.llen("default") == 0
        finally:
            server.config_set("maxmemory", 0)
        stock.send_task("demo.work", args=["after"], queue="default")
        worker.wait_for("end after")
        assert starts(worker, tags) == [1] * 100


def test_a_worker_frozen_past_its_lease_finds_its_work_taken(redis_url: str, stock: Celery, tmp_path: Path) -> None:
    first = Worker(redis_url, tmp_path)
    second = Worker(redis_url, tmp_path, name="w2")
    with first, second:
        second.signal(signal.SIGSTOP)
        tags = send(stock, 3, 5.0)
        eventually(lambda: sum(starts(first, tags)) == 3, "they run")
        first.signal(signal.SIGSTOP)
        second.signal(signal.SIGCONT)
        eventually(lambda: starts(second, tags) == [2] * 3, "the other has taken them over")
        first.signal(signal.SIGCONT)
        eventually(lambda: "leases_lost" in first.log.read_text(), "it notices")
        eventually(lambda: all_ended(second, tags), "all have ended")
        time.sleep(1)
        assert [second.notes()[f"end {tag}"] for tag in tags] == [1] * 3
        stock.send_task("demo.work", args=["after"], queue="default")
        second.wait_for("end after")
        assert first.alive


def test_a_blocked_loop_keeps_its_lease_and_its_remote_control(redis_url: str, stock: Celery, tmp_path: Path) -> None:
    with Worker(redis_url, tmp_path) as first:
        stock.send_task("demo.block", args=["b", LEASE * 3], queue="default")
        first.wait_for("start b")
        with Worker(redis_url, tmp_path, name="w2") as second:
            assert inspect(stock, first).ping()
            first.wait_for("end b")
            time.sleep(0.5)
            assert second.notes()["start b"] == 1
        assert "loop_stalled" in first.log.read_text()
        assert "time.sleep" in first.log.read_text()  # the stack says where


def test_a_message_that_kills_its_worker_is_buried_after_three(
    redis_url: str, stock: Celery, server: redis.Redis, tmp_path: Path
) -> None:
    sent = stock.send_task("demo.die", args=["d"], queue="default")
    for _ in range(3):
        worker = Worker(redis_url, tmp_path)
        with worker.start(until_ready=False):
            eventually(lambda: not worker.alive, "it dies of it")  # noqa: B023
    with Worker(redis_url, tmp_path) as worker:
        eventually(lambda: server.llen("workers:dead") == 1, "it is with the dead letters")
        stock.send_task("demo.work", args=["after"], queue="default")
        worker.wait_for("end after")
        [letter] = inspect(stock, worker)._request("dead")[worker.node]
        assert letter["id"] == sent.id
        assert "died 3 times" in letter["reason"]
    assert worker.notes()["start d"] == 3


def test_an_actor_says_how_often_workers_may_die_of_it_and_middleware_is_told_of_each(
    redis_url: str, stock: Celery, server: redis.Redis, tmp_path: Path
) -> None:
    sent = stock.send_task("demo.fragile", args=["f"], queue="default")
    for _ in range(2):
        worker = Worker(redis_url, tmp_path)
        with worker.start(until_ready=False):
            eventually(lambda: not worker.alive, "it dies of it")  # noqa: B023
    with Worker(redis_url, tmp_path) as worker:
        eventually(lambda: server.llen("workers:dead") == 1, "it is with the dead letters")
        eventually(lambda: worker.notes()[f"lost demo.fragile default {sent.id}"] == 2, "each death is told")
    assert worker.notes()["start f"] == 2


def test_a_crash_counts_only_against_what_had_begun(
    redis_url: str, stock: Celery, server: redis.Redis, tmp_path: Path
) -> None:
    killer = stock.send_task("demo.die", args=["d"], queue="default")
    tags = [f"t{n}" for n in range(10)]
    for tag in tags:  # fetched together with the one that kills the worker, before they can begin
        stock.send_task("demo.crashes", args=[tag], queue="default")
    for number in range(8):
        with Worker(redis_url, tmp_path, name=f"w{number}").start(until_ready=False) as worker:
            eventually(lambda: not worker.alive or server.llen("workers:dead"), "it dies of it, or is rid of it")
            if worker.alive:
                eventually(lambda: all(worker.notes()[f"crashes0 {tag}"] for tag in tags), "the others have run")
                [letter] = inspect(stock, worker)._request("dead")[worker.node]
                break
    assert letter["id"] == killer.id
    assert [worker.notes()[f"crashes0 {tag}"] for tag in tags] == [1] * 10
    assert 3 <= worker.notes()["start d"] <= 4


def test_what_does_not_let_go_is_written_off_and_its_slot_is_free(
    redis_url: str, stock: Celery, tmp_path: Path
) -> None:
    with Worker(redis_url, tmp_path, CONCURRENCY=1) as worker:
        stock.send_task("demo.stubborn", args=["s", 600.0], queue="default")
        stock.send_task("demo.work", args=["after"], queue="default")
        worker.wait_for("start s", "asked s", "end after")
        assert "task_stuck" in worker.log.read_text()
        assert not inspect(stock, worker).active()[worker.node]
        assert not worker.notes()["end s"]


def test_a_message_that_arrives_while_an_idle_worker_is_frozen_is_not_lost(
    redis_url: str, stock: Celery, tmp_path: Path
) -> None:
    with Worker(redis_url, tmp_path) as first:
        time.sleep(0.5)
        first.signal(signal.SIGSTOP)
        tags = send(stock, 5)
        time.sleep(0.2)
        first.process.kill()  # type: ignore[union-attr]
        first.process.wait()  # type: ignore[union-attr]
    with Worker(redis_url, tmp_path, name="w2") as second:
        eventually(lambda: all_ended(second, tags), "all have ended")


def test_a_mixed_fleet_shares_a_queue(redis_url: str, stock: Celery, tmp_path: Path) -> None:
    with (
        Worker(redis_url, tmp_path, CONCURRENCY=5) as ours,
        Worker(redis_url, tmp_path, name="w2", options=STOCK, CONCURRENCY=5) as theirs,
    ):
        tags = send(stock, 300, 0.05)
        eventually(lambda: all_ended(ours, tags), "all have ended")
        assert starts(ours, tags) == [1] * 300
        workers = {line.split()[2] for line in theirs.journal.read_text().splitlines()}
        assert workers == {str(ours.pid), str(theirs.pid)}


def test_the_urgent_goes_first(redis_url: str, stock: Celery, server: redis.Redis, tmp_path: Path) -> None:
    worker = Worker(redis_url, tmp_path, CONCURRENCY=1)
    for number, tag in ((9, "low"), (6, "normal"), (3, "high"), (0, "critical")):
        stock.send_task("demo.work", args=[tag], queue="default", priority=number)
    with worker:
        worker.wait_for("end low")
    order = [line.split()[1] for line in worker.journal.read_text().splitlines() if line.startswith("start")]
    assert order == ["critical", "high", "normal", "low"]


def test_the_low_is_never_starved(redis_url: str, stock: Celery, tmp_path: Path) -> None:
    worker = Worker(redis_url, tmp_path, CONCURRENCY=1)
    for n in range(100):
        stock.send_task("demo.work", args=[f"c{n}"], queue="default", priority=0)
    stock.send_task("demo.work", args=["low"], queue="default", priority=9)
    with worker:
        worker.wait_for("end low", "end c99")
    order = [line.split()[1] for line in worker.journal.read_text().splitlines() if line.startswith("start")]
    assert order.index("low") < 30
