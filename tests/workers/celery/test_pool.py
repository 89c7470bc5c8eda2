"""Celery's pool over one event loop: its calls into Celery's main thread, and its threads."""

from __future__ import annotations

import contextlib
import gc
import socket
import sys
import threading
import time
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest
from celery import Task
from celery.contrib.testing.worker import start_worker
from kombu.asynchronous import Hub

from callboard_workers.celery import create_celery
from callboard_workers.celery.interrupts import Interrupts
from callboard_workers.celery.main_thread_calls import Letters
from callboard_workers.celery.pool import Collector


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub of kombu's with its real poller."""
    opened, (mine, other) = Hub(), socket.socketpair()
    opened.add_reader(mine.fileno(), mine.recv, 1)  # without a connection it would not poll at all
    yield opened
    opened.close()
    mine.close()
    other.close()


def test_an_acknowledgement_asked_for_by_a_callback_does_not_wait_for_the_hubs_next_poll(hub: Hub) -> None:
    letters = Letters()
    letters.hub = hub
    polls: list[bool] = []
    acknowledged: list[list[bool]] = []
    sender = threading.Thread(target=letters.send, args=(lambda: hub.call_soon(lambda: acknowledged.append([*polls])),))
    poll = hub.poller.poll

    def counted(timeout: float) -> Any:
        if not polls:  # the hub sleeps while the event loop's thread reports the end of a task
            sender.start()
            sender.join()
        events = poll(timeout)
        polls.append(bool(events))
        return events

    hub.poller.poll = counted
    loop = hub.create_loop()
    while not acknowledged:
        next(loop)
    letters.close()
    assert acknowledged == [[True, True]], "a poll ended by its timeout while a callback was waiting"


class Limit(Exception):
    """Raised in a thread."""


def spin(seconds: float) -> str:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pass
    return "done"


@pytest.fixture
def short_turns() -> Iterator[None]:
    """Threads that take turns often, rather than every 5 ms, so that they meet at many places."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.00001)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("short_turns")
def test_an_exception_for_a_thread_arrives_in_its_function_or_not_at_all() -> None:
    """It is raised while the function runs, after the function has returned, and at a moment between."""
    ends: list[str] = []
    outside: list[BaseException] = []
    interrupts = Interrupts()
    begin = threading.Barrier(2)
    # Unlike those of an event, a simple queue's methods cannot be interrupted halfway.
    inside: SimpleQueue[None] = SimpleQueue()
    over: SimpleQueue[None] = SimpleQueue()

    def function(seconds: float) -> str:
        inside.put(None)
        return spin(seconds)

    def run() -> None:
        try:
            for n in range(300):
                begin.wait()
                try:
                    ends.append(interrupts.call(function, (60, 0, 0.0005)[n % 3]))
                except Limit:
                    ends.append("interrupted")
                over.put(None)
                begin.wait()
                spin(0.0002)
        except BaseException as error:
            outside.append(error)
            begin.abort()

    thread = threading.Thread(target=run)
    thread.start()
    with contextlib.suppress(threading.BrokenBarrierError):  # `outside` then says why
        for n in range(300):
            interrupts = Interrupts()
            inside, over = SimpleQueue(), SimpleQueue()
            begin.wait()
            if n % 3 == 2:
                spin(0.00001 * (n % 100))
            else:
                (over if n % 3 else inside).get(timeout=60)
            interrupts.interrupt(Limit)
            begin.wait()
    thread.join()
    assert outside == []
    assert len(ends) == 300
    assert set(ends[0::3]) == {"interrupted"}
    assert set(ends[1::3]) == {"done"}
    assert set(ends[2::3]) <= {"done", "interrupted"}


def test_an_exception_for_a_thread_that_has_not_begun_waits_for_it() -> None:
    interrupts = Interrupts()
    interrupts.interrupt(Limit)
    with pytest.raises(Limit):
        interrupts.call(spin, 0)
    interrupts.interrupt(Limit)  # it is over: nothing arrives
    assert spin(0.01) == "done"


def test_the_garbage_collector_is_left_as_it_was() -> None:
    before = gc.get_threshold(), gc.get_freeze_count()
    collector = Collector(100)
    assert gc.get_threshold() != before[0]
    assert gc.get_freeze_count() > before[1]
    collector.restore()
    assert (gc.get_threshold(), gc.get_freeze_count()) == before


def test_a_worker_in_a_programs_thread_runs_class_based_tasks_and_leaves_the_collector_alone(redis_url: str) -> None:
    app = create_celery(redis_url, redis_url.replace("/0", "/2"))
    other = create_celery("memory://")

    class Add(Task):
        name = "pool.add"
        ignore_result = False

        def run(self, a: int, b: int) -> int:
            return a + b

    task = app.register_task(Add())
    other.set_current()
    before = gc.get_threshold(), gc.get_freeze_count()
    with start_worker(app, pool=app.conf.worker_pool, concurrency=2, perform_ping_check=False, shutdown_timeout=30):
        assert task.delay(2, 3).get(timeout=60) == 5
        assert (gc.get_threshold(), gc.get_freeze_count()) == before
