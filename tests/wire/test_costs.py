"""What a direct message costs Redis: counts that must not grow, and never times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import redis

from callboard_workers.message import Message
from callboard_workers.redis.protocol import encode
from tests.wire.process import Worker

TASKS = 5_000
COMMANDS, ROUND_TRIPS = 0.5, 0.2  # measured: 0.22 and 0.05
"""Of a task whose worker has much to do; a command inside a script counts as one."""
DOORBELL, DIRECT = 900, 950
"""Bytes of a message for a row, and of one with a few arguments."""


def counted(server: redis.Redis) -> tuple[int, int]:
    """Commands and reads (round trips) so far."""
    stats: dict[str, Any] = server.info("commandstats")
    return sum(each["calls"] for each in stats.values()), server.info("stats")["total_reads_processed"]


def test_many_tasks_share_few_commands(redis_url: str, tmp_path: Path) -> None:
    with redis.Redis.from_url(redis_url) as server, Worker(redis_url, tmp_path) as worker:
        server.lpush("default", *(encode(Message(actor="demo.noop")) for _ in range(1_000)))
        worker.wait_for("thousand 1", timeout=120)
        before = counted(server)
        server.lpush("default", *(encode(Message(actor="demo.noop")) for _ in range(TASKS)))
        worker.wait_for(f"thousand {1 + TASKS // 1_000}", timeout=120)
        commands, reads = (now - then for now, then in zip(counted(server), before, strict=True))
    assert commands / TASKS < COMMANDS, commands
    assert reads / TASKS < ROUND_TRIPS, reads


def test_a_message_is_small() -> None:
    assert len(encode(Message(actor="emails.send_email", queue="email"), durable=True)) < DOORBELL
    assert len(encode(Message(actor="orders.ship", args=("0199f6d6-c3a1-712f-a0d5-f1f0a9c1e7b2", 3)))) < DIRECT
