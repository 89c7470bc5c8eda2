"""Each fact of a story is told once, and drawn within the terminal's width."""

import io
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from rich.console import Console

from service.core.timeline import Event
from service.tasks.repository import Attempt, TaskReport
from service.tasks.serializers import once_each, task_events
from service.timeline.text import drawn, humane, lines, plain
from service.timeline.timeline import RequestStory, arrange

START = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
ID = UUID("019aa3c5-2f7e-7c31-9d52-5a0c7f3e1b44")
RECORD = f"em_{ID.hex}"
REPLY = {"code": 250, "text": "2.0.0 Ok: queued as 4Xy2, and " + "so on " * 30}


def after(milliseconds: float) -> datetime:
    return START + timedelta(milliseconds=milliseconds)


def report(*history: Attempt, state: str = "done", **more: Any) -> TaskReport:
    fields: dict[str, Any] = dict.fromkeys(TaskReport.__struct_fields__)
    fields |= {"id": ID, "task_id": ID, "name": "emails.send_email", "status": "SUCCESS", "state": state}
    fields |= {"queue": "email", "priority": "normal", "created_at": after(3), "history": list(history)}
    return TaskReport(**fields | {"started_at": after(10), "finished_at": after(50)} | more)


def attempt(number: int, outcome: str, start: float, end: float, **detail: Any) -> Attempt:
    return Attempt(number, outcome, after(start), after(end), "w@1", detail or None)


def whats(events: list[Event]) -> list[str]:
    return [event.what for event in sorted(events, key=lambda event: event.at)]


def sent(number: int, at: float) -> Event:
    return Event(after(at), "email_sent", RECORD, {"attempt": number, **REPLY, "duration_ms": 30})


def test_the_attempt_that_ends_a_task_is_told_by_its_end() -> None:
    task = report(attempt(1, "retry", 10, 20, code=451), attempt(2, "done", 30, 50, code=250))
    assert whats(task_events(task)) == [
        "task_queued",
        "attempt_started",
        "attempt_retry",
        "attempt_started",
        "task_done",
    ]
    end = task_events(task)[-1].detail
    assert (end["attempt"], end["code"], end["worker"]) == (2, 250, "w@1")


def test_a_success_without_a_row_is_told() -> None:
    assert whats(task_events(report())) == ["task_queued", "attempt_started", "task_done"]


@pytest.mark.parametrize("state", ["done", "dead", "uncertain"])
def test_what_the_record_tells_of_an_attempt_the_task_does_not(state: str) -> None:
    events = task_events(report(attempt(1, state, 10, 49), state=state))
    told = once_each([*events, sent(1, 50)])
    assert whats(told) == ["task_queued", "attempt_started", "email_sent"]


def test_what_the_record_tells_of_another_attempt_hides_nothing() -> None:
    events = task_events(report(attempt(1, "retry", 10, 20), attempt(2, "dead", 30, 50), state="dead"))
    told = once_each([*events, sent(1, 20)])
    assert whats(told) == ["task_queued", "attempt_started", "email_sent", "attempt_started", "task_dead"]


def test_another_record_hides_nothing() -> None:
    other = Event(after(50), "email_sent", "em_" + "0" * 32, {"attempt": 1})
    assert "task_done" in whats(once_each([*task_events(report(attempt(1, "done", 10, 50))), other]))


def test_a_cancelled_mail_is_told_once() -> None:
    events = task_events(report(state="canceled", started_at=None, finished_at=after(40)))
    told = once_each([*events, Event(after(40), "email_canceled", RECORD, {})])
    assert whats(told) == ["task_queued", "email_canceled"]


def test_a_requeue_is_nobodys_attempt() -> None:
    requeued = Attempt(2, "requeued", after(30), after(30), "ak_1", {"by": "ak_1"})
    events = task_events(report(attempt(1, "dead", 10, 20), requeued, state="queued", finished_at=None))
    assert whats(events) == ["task_queued", "attempt_started", "attempt_dead", "task_requeued"]


def test_nothing_happens_before_the_request_came_in() -> None:
    received = Event(after(0.6), "request_received", "r", {"route": "POST /v1/emails"})
    story = arrange("r", [], [Event(START, "email_accepted", RECORD, {}), received])
    assert [(event.what, event.offset_ms) for event in story.events] == [("request_received", 0), ("email_accepted", 0)]
    assert story.duration_ms == 0


def example() -> RequestStory:
    task = report(attempt(1, "retry", 10, 20, **REPLY), attempt(2, "done", 30, 50, **REPLY))
    received = Event(START, "request_received", "r-1", {"route": "POST /v1/emails"})
    accepted = Event(after(1), "email_accepted", RECORD, {"recipients": 1, "mode": "live"})
    return arrange("r-1", [task], [received, accepted, *task_events(task), sent(2, 50)])


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_terminal_gets_a_line_per_fact_within_its_width(width: int) -> None:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=True, color_system=None).print(drawn(example()))
    shown = out.getvalue()
    assert max(map(len, shown.splitlines())) <= width
    assert "task_done" not in shown
    if width >= 80:
        assert (shown.count(RECORD), shown.count(str(ID)), shown.count("…1b44")) == (1, 1, 4)
        facts = [line for line in shown.splitlines()[3:] if line.strip() and not line.startswith("    ")]
        assert len([line for line in facts if "ms  " in line]) == len(example().events)


def test_a_program_gets_one_line_per_fact_with_whole_ids() -> None:
    told = list(lines(example()))
    assert len(told) == len(example().events)
    assert told[0] == '2026-11-22T09:30:00.000000Z +0.0ms request_received id=r-1 route="POST /v1/emails"'
    assert all(RECORD in line or str(ID) in line for line in told[1:])


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0 ms"),
        (7.24, "7.2 ms"),
        (159.4, "159 ms"),
        (999.7, "1.00 s"),
        (2385, "2.38 s"),
        (245_000, "4 min 5 s"),
        (7_500_000, "2 h 5 min"),
        (273_600_000, "3 d 4 h"),
    ],
)
def test_durations_are_humane(milliseconds: float, text: str) -> None:
    assert humane(milliseconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(START, "2026-11-22T09:30:00Z"), (2.50, "2.5"), ("a\x1b[31m", "a�[31m"), ({"a": 1}, '{"a": 1}'), (True, "True")],
)
def test_values_are_plain_text(value: Any, text: str) -> None:
    assert plain(value) == text
