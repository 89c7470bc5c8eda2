"""Celery's pool over one event loop: its calls into Celery's main thread, and its threads."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from kombu.asynchronous import Hub

from workers.celery.letters import Letters


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
