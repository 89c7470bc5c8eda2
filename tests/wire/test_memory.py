"""A worker that has run for long is no bigger than one that has run for a while."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from callboard_workers.message import Message
from callboard_workers.redis.protocol import encode
from tests.wire.process import Worker, client, eventually

FLAT = 6 * 1024
"""KiB it may grow between the first tasks and thirty thousand."""
KEPT = 60 * 1024
"""KiB it may grow over twenty failed attempts with 20 MB in a local variable each."""


def resident(pid: int) -> int:
    """KiB of a process's own memory."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def run(server: redis.Redis, worker: Worker, thousands: int) -> None:
    done = sum(1 for note in worker.notes() if note.startswith("thousand"))
    for _ in range(thousands):
        server.lpush("default", *(encode(Message(actor="demo.noop")) for _ in range(1_000)))
    worker.wait_for(f"thousand {done + thousands}", timeout=120)


def test_memory_is_flat_over_thousands_of_tasks(redis_url: str, tmp_path: Path) -> None:
    with redis.Redis.from_url(redis_url) as server, Worker(redis_url, tmp_path) as worker:
        run(server, worker, 10)
        before = resident(worker.pid)
        run(server, worker, 20)
        eventually(lambda: resident(worker.pid) - before < FLAT, f"it takes no more than {before} + {FLAT} KiB", 10)


@pytest.mark.parametrize("task", ["demo.heavy", "demo.heavy_thread", "demo.plain_heavy"])
def test_failed_attempts_free_their_local_variables(redis_url: str, tmp_path: Path, task: str) -> None:
    sender = client(redis_url)
    with Worker(redis_url, tmp_path, CONCURRENCY=1) as worker:
        sender.send_task(task, args=["first"], queue="default")
        worker.wait_for("start first")
        before = resident(worker.pid)
        for n in range(20):
            sender.send_task(task, args=[f"t{n}"], queue="default")
        worker.wait_for(*(f"start t{n}" for n in range(20)))
        eventually(lambda: resident(worker.pid) - before < KEPT, "twenty locals of 20 MB are freed", 10)


def test_a_worker_that_has_run_its_number_retires_and_loses_nothing(redis_url: str, tmp_path: Path) -> None:
    with redis.Redis.from_url(redis_url) as server:
        server.lpush("default", *(encode(Message(actor="demo.work", args=(f"t{n}", 0.05))) for n in range(300)))
        processes = 0
        while server.llen("default"):
            processes += 1
            with Worker(redis_url, tmp_path, "--max-tasks-per-child", "100", CONCURRENCY=5) as worker:
                assert worker.process is not None
                eventually(lambda: not worker.alive or not server.llen("default"), "it retires, or all is done", 60)
                if not worker.alive:
                    assert worker.process.returncode == 0
                    assert "worker_retires" in worker.log.read_text()
                else:
                    assert worker.stop() == 0
        assert processes > 1
        notes = worker.notes()
        assert [notes[f"end t{n}"] for n in range(300)] == [1] * 300
        assert [notes[f"start t{n}"] for n in range(300)] == [1] * 300


def test_a_worker_that_has_grown_too_big_retires(redis_url: str, tmp_path: Path) -> None:
    with Worker(redis_url, tmp_path, "--max-memory-per-child", "1000").start(until_ready=False) as worker:
        eventually(lambda: not worker.alive, "it retires", 60)
        assert "takes more memory" in worker.log.read_text()
