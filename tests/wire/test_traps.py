"""What goes wrong in other set-ups does not here; docs/migrating-from-celery.md names the test of each trap."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import redis
from celery import Celery

from callboard_workers.redis.keys import Keys
from service.dev.stack import Stack
from tests.faults.test_clocks import off_by
from tests.wire.process import OURS, ROOT, Worker, client, eventually, inspect

KEYS = Keys()
PATIENT = {**OURS, "lease": 30.0}


def send(stock: Celery, tags: list[str], seconds: float = 0.0, **options: object) -> None:
    for tag in tags:
        stock.send_task("demo.work", args=[tag, seconds], queue="default", **options)


def ended(worker: Worker, tags: list[str]) -> list[int]:
    notes = worker.notes()
    return [notes[f"end {tag}"] for tag in tags]


def test_what_is_put_off_for_longer_than_a_lease_runs_once_and_waits_in_no_worker(
    redis_url: str, tmp_path: Path
) -> None:
    stock, soon = client(redis_url), [f"soon{n}" for n in range(20)]
    with (
        Worker(redis_url, tmp_path) as first,
        Worker(redis_url, tmp_path, name="w2") as second,
        redis.Redis.from_url(redis_url) as server,
    ):
        send(stock, soon, countdown=3)  # the lease is one second
        send(stock, [f"later{n}" for n in range(2_000)], countdown=3_600)
        eventually(lambda: server.zcard(KEYS.delayed) >= 2_000, "everything is put off", timeout=60)
        eventually(lambda: all(ended(first, soon)), "what is due has run", timeout=60)
        time.sleep(1.5)  # another lease: time enough to run it again
        assert ended(first, soon) == [1] * 20
        assert [key for key in server.scan_iter(f"{KEYS.unacked('')}*") if server.hlen(key)] == []
        answer = eventually(lambda: inspect(stock, first).reserved(), "the worker answers")
        assert answer == {first.node: []}
        first.kill()
        second.kill()
        assert server.zcard(KEYS.delayed) == 2_000


def test_a_clock_that_is_hours_ahead_takes_nobodys_work(redis_url: str, tmp_path: Path) -> None:
    stock = client(redis_url)
    with Worker(redis_url, tmp_path, options=PATIENT) as right:
        send(stock, ["long"], 4.0)
        right.wait_for("start long")
        with Worker(redis_url, tmp_path, name="w2", options=PATIENT, **off_by("+2h")) as wrong:
            send(stock, ["put_off"], countdown=600)
            with redis.Redis.from_url(redis_url) as server:
                eventually(lambda: server.zcard(KEYS.delayed), "it is put off")
                right.wait_for("end long", timeout=60)
                assert server.zcard(KEYS.delayed) == 1
            assert wrong.alive
            notes = right.notes()
        assert (notes["start long"], notes["start put_off"]) == (1, 0)


def test_a_broker_that_restarts_again_and_again_is_found_again_each_time(
    stack: Stack, redis_url: str, tmp_path: Path
) -> None:
    stock = client(redis_url)
    with Worker(redis_url, tmp_path) as worker:
        for number in range(4):
            stack.valkey.kill()
            stack.valkey.start()
            eventually(lambda: _accepts(stock, f"after{number}"), "Celery's client sends", timeout=60)  # noqa: B023
            worker.wait_for(f"end after{number}", timeout=60)
        assert worker.alive


def _accepts(stock: Celery, tag: str) -> bool:
    try:
        send(stock, [tag], retry=False)
    except Exception:
        return False
    return True


OPENS = """
import gc, socket, sys, threading
opened = []
sys.addaudithook(lambda event, args: opened.append(args) if event == "socket.connect" else None)
import service.celery
from sqlalchemy.ext.asyncio import AsyncEngine
engines = [each for each in gc.get_objects() if type(each) is AsyncEngine]
print(len(opened), len(engines), [each.name for each in threading.enumerate()])
"""


def test_an_imported_app_has_opened_nothing_that_a_loop_or_a_child_could_inherit() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", OPENS], cwd=ROOT, capture_output=True, text=True, timeout=100, check=True
    )
    assert ran.stdout.strip().splitlines()[-1] == "0 0 ['MainThread']"


def test_a_message_that_its_task_rejects_comes_back_marked_and_behind_the_others(
    redis_url: str, tmp_path: Path
) -> None:
    sender = client(redis_url)
    for task, tag in (("demo.rejecting", "rejected"), ("demo.plain", "a"), ("demo.plain", "b")):
        sender.send_task(task, args=[tag], queue="default")
    with Worker(redis_url, tmp_path, CONCURRENCY=1) as worker:
        worker.wait_for("end rejected")
        order = [line.rpartition(" ")[0] for line in worker.journal.read_text().splitlines()]
    assert order == ["rejected rejected", "end a", "end b", "end rejected"]
