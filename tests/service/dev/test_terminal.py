"""What a person reads while `up` runs."""

import io
import json
from datetime import datetime
from pathlib import Path

import pytest

from service.db import migrate
from service.dev import schema
from service.dev.terminal import Terminal, has_colour, summary, without_traceback


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def screen() -> Screen:
    return Screen()


def read(screen: Screen, *lines: str, colour: bool = False) -> list[str]:
    terminal = Terminal(screen, ["postgres", "api"], colour)
    for line in lines:
        terminal.log("api", line)
    terminal.close()
    return screen.getvalue().splitlines()


def test_a_line_has_the_time_and_an_aligned_name(screen: Screen) -> None:
    (line,) = read(screen, "hello")
    time, name, rest = line.split(" ", 1)[0], *line.split(" ", 1)[1].split("│")
    datetime.strptime(time, "%H:%M:%S")  # noqa: DTZ007 - local, for the person who looks at it
    assert (name, rest) == ("api      ", " hello")


def test_json_becomes_an_event_and_its_fields_with_ids_last(screen: Screen) -> None:
    event = {"at": "x", "level": "info", "event": "request_done", "component": "api", "tenant": "t", "request_id": "r"}
    (line,) = read(screen, json.dumps(event | {"path": "/v1", "note": "two words", "ms": 1.5}))
    assert line.endswith('│ request_done path=/v1 note="two words" ms=1.5 request_id=r')


def test_a_traceback_is_indented_under_its_event(screen: Screen) -> None:
    lines = read(screen, json.dumps({"event": "task_retry", "exception": "Traceback:\n  boom"}))
    assert [line.split("│ ")[1] for line in lines] == ["task_retry", "  Traceback:", "    boom"]


def test_the_rounds_of_the_schedule_are_left_out_and_their_failures_are_not(screen: Screen) -> None:
    done = {"event": "task_done", "level": "info", "task_name": "jobs.forget", "request_id": "cron:jobs.forget:1"}
    lines = [
        {"event": "cron_fired", "level": "info", "task_name": "jobs.forget"},
        done,
        done | {"event": "task_failed", "level": "warning"},
        done | {"request_id": "r"},
    ]
    assert [line.partition("│ ")[2].split()[0] for line in read(screen, *map(json.dumps, lines))] == [
        "task_failed",
        "task_done",
    ]


def test_of_a_line_a_sentence_takes_the_event_its_error_and_hint() -> None:
    event = {
        "event": "port_taken",
        "level": "error",
        "error": "in use",
        "hint": "choose another",
        "exception": "T\nE: x",
    }
    assert summary(json.dumps(event)) == "port_taken in use choose another"
    assert (
        summary(json.dumps({"event": "broke", "exception": "Traceback\n  here\nValueError: x"}))
        == "broke ValueError: x"
    )
    assert without_traceback('  File "x.py", line 1') == ""
    assert json.loads(without_traceback(json.dumps(event)))["event"] == "port_taken"
    assert "exception" not in without_traceback(json.dumps(event))


@pytest.mark.parametrize("line", ["{not json", "[1]", '{"no": "event"}', "plain", '"event"'])
def test_what_is_no_event_stays_as_it_is(screen: Screen, line: str) -> None:
    assert read(screen, line)[0].endswith(f"│ {line}")


@pytest.mark.parametrize("line", ["\x1b[2J\x9bgone\x07", json.dumps({"event": "e\x1b[2J", "f": "\x9b\u2028\x1b]0;x"})])
def test_a_log_cannot_paint_over_the_terminal(screen: Screen, line: str) -> None:
    assert not {"\x1b", "\x9b", "\x07", "\u2028"} & set(read(screen, line)[0])


def test_blank_lines_are_left_out(screen: Screen) -> None:
    assert read(screen, "", "  ", "\n") == []


def test_colour_is_for_a_terminal_that_wants_it(screen: Screen) -> None:
    assert has_colour(screen, {})
    assert not has_colour(screen, {"NO_COLOR": "1"})
    assert not has_colour(screen, {"TERM": "dumb"})
    assert not has_colour(io.StringIO(), {})
    assert "\x1b[36mapi" in read(screen, "hello", colour=True)[0]


def test_a_terminal_that_takes_nothing_stops_nobody(screen: Screen) -> None:
    screen.close()
    terminal = Terminal(screen, ["api"], False)
    for number in range(20_000):
        terminal.log("api", str(number))
    terminal.close()


def test_the_schema_is_looked_for_where_it_is_brought_from() -> None:
    assert schema.versions() == Path(migrate.folder()) / "versions"


def test_every_change_of_a_migration_is_seen(tmp_path: Path) -> None:
    first = schema.fingerprint(tmp_path)
    (tmp_path / "one.py").write_text("x")
    second = schema.fingerprint(tmp_path)
    (tmp_path / "one.py").write_text("y")
    assert len({first, second, schema.fingerprint(tmp_path)}) == 3
