"""A request's story for a person: one line per fact, its details under it; or one greppable line per fact. Pure."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from callboard_workers.ledger.schema import State
from service.tasks.serializers import key
from service.timeline.timeline import ARRIVAL, Moment, RequestStory

GOOD = ("_done", "_sent", "_success", "_received", "_delivered", "_accepted")
LATER = ("_retry", "_snooze", "_scheduled", "_requeued", "_resent", "_canceled", "_expired", "_held", "_interrupted")
BAD = ("_dead", "_failed", "_uncertain", "_crashed", "_lost", "_error", "_bounced", "_complained")
COLORS = {"done": "green", "queued": "cyan", "running": "cyan", "canceled": "yellow", "expired": "yellow"}
TOOK = ("ms", "duration_ms")
WRAPPERS = ("detail", "outcome")
LONGEST = 500  # characters of one value
MARGIN = 4


def drawn(story: RequestStory) -> RenderableType:
    """Draw a story: since its beginning, since the line before, what happened to which record or task.

    An id stands in full where it comes first, by its last digits afterwards; a detail that the same record or task
    has told already is not told again.
    """
    ids = Ids(story.events)
    offsets = [humane(moment.offset_ms) for moment in story.events]
    steps = [f"+{humane(step)}" if step else "" for step in _steps(story.events)]
    widths = [max(map(len, column)) for column in (offsets, steps, [moment.what for moment in story.events])]
    lines: list[RenderableType] = [_head(story)]
    told: dict[str, dict[str, Any]] = {}
    for moment, offset, step in zip(story.events, offsets, steps, strict=True):
        lines.append(_line(moment, offset, step, widths, ids))
        if news := _news(moment, told.setdefault(key(moment.id), {})):
            lines.append(Padding(Text(news, "dim", overflow="fold"), (0, 0, 0, MARGIN)))
    if not story.complete:
        lines.append(Text(f"\nMore than {len(story.tasks)} tasks: the rest is not told.", "yellow"))
    return Group(*lines)


def lines(story: RequestStory) -> Iterator[str]:
    """Write a story as text for programs: time, milliseconds since the beginning, event, then key=value."""
    for moment in story.events:
        at = moment.at.isoformat(timespec="microseconds").replace("+00:00", "Z")
        fields = {"id": moment.id, **flat(moment.detail)}
        yield f"{at} +{moment.offset_ms:.1f}ms {moment.what} {_pairs(fields)}"


class Ids:
    """Shows each id in full the first time, then by as many of its last digits as tell it from the others."""

    def __init__(self, moments: Sequence[Moment]) -> None:
        keys = {key(moment.id) for moment in moments}
        digits = range(4, 33)
        self._length = next((n for n in digits if len({found[-n:] for found in keys}) == len(keys)), 32)
        self._seen: set[str] = set()

    def show(self, id: str) -> str:
        """The next mention of `id`."""
        if id in self._seen:
            return f"…{id[-self._length :]}"
        self._seen.add(id)
        return plain(id)


def humane(milliseconds: float) -> str:
    """Write a duration for a person: `7.2 ms`, `159 ms`, `2.30 s`, `4 min 5 s`, `2 h 5 min`, `3 d 4 h`."""
    if milliseconds < 999.5:
        return f"{milliseconds:.0f} ms" if milliseconds >= 99.5 or not milliseconds else f"{milliseconds:.1f} ms"
    if milliseconds < 59_995:
        return f"{milliseconds / 1000:.2f} s"
    seconds = round(milliseconds / 1000)
    for large, small, name, less in ((86_400, 3600, "d", "h"), (3600, 60, "h", "min"), (60, 1, "min", "s")):
        if seconds >= large:
            rest = seconds % large // small
            return f"{seconds // large} {name}" + (f" {rest} {less}" if rest else "")
    return f"{seconds} s"


def flat(detail: Mapping[str, Any]) -> dict[str, Any]:
    """Lift what is wrapped, write an error as its message, drop what is empty."""
    found: dict[str, Any] = {}
    for name, value in detail.items():
        if value in (None, "", {}, []):
            continue
        if name in WRAPPERS and isinstance(value, dict):
            found |= flat(value)
        elif name == "error" and isinstance(value, dict):
            found[name] = value.get("message") or value.get("reason") or value.get("type")
        else:
            found[name] = value
    return found


def plain(value: Any) -> str:
    """Write a value as text that cannot steer a terminal: what a server said is anybody's words."""
    if isinstance(value, float):
        value = f"{value:g}"
    if isinstance(value, datetime):
        value = value.isoformat().replace("+00:00", "Z")
    shown = value if isinstance(value, str | int) else json.dumps(value, ensure_ascii=False, default=str)
    return "".join(character if character.isprintable() else "�" for character in str(shown))[:LONGEST]


def _steps(moments: Sequence[Moment]) -> list[float]:
    return [0.0, *(after.offset_ms - before.offset_ms for before, after in pairwise(moments))]


def _head(story: RequestStory) -> Text:
    started = f"{story.started_at:%Y-%m-%d %H:%M:%S}.{story.started_at.microsecond // 1000:03d} UTC"
    head = Text.assemble(("Request ", "dim"), (plain(story.request_id), "bold"), "\n", started)
    head.append(f" · {humane(story.duration_ms)} · " + _count(len(story.tasks), "task"))
    for state in State:
        if number := sum(task.state == state for task in story.tasks):
            head.append(" · ").append(f"{number} {state}" if len(story.tasks) > 1 else state, COLORS.get(state, "red"))
    return head.append("\n")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _line(moment: Moment, offset: str, step: str, widths: Sequence[int], ids: Ids) -> Text:
    line = Text.assemble(
        f"{offset:>{widths[0]}}  ",
        (f"{step:>{widths[1]}}  ", "dim"),
        (f"{moment.what:<{widths[2]}}  ", _style(moment.what)),
        overflow="fold",
    )
    if moment.what == ARRIVAL:
        return line.append(plain(moment.detail.get("route", "")))
    line.append(ids.show(moment.id), "dim")
    if (number := moment.detail.get("attempt")) is not None:
        line.append(f"  attempt {plain(number)}")
    if took := next((moment.detail[name] for name in TOOK if moment.detail.get(name)), None):
        line.append(f" took {humane(float(took))}")
    return line


def _news(moment: Moment, told: dict[str, Any]) -> str:
    if moment.what == ARRIVAL:
        return ""
    fields = {name: value for name, value in flat(moment.detail).items() if name not in (*TOOK, "attempt")}
    news = {name: value for name, value in fields.items() if told.get(name) != value}
    # What an attempt was told is not what the next one is told: only what names the place of work is kept in mind.
    told.update({name: value for name, value in fields.items() if name in ("task", "worker", "queue", "host")})
    return _pairs(news)


def _pairs(fields: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={_quoted(plain(value))}" for name, value in fields.items())


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if not value or set(value) & set(' "=') else value


def _style(what: str) -> str:
    if what.endswith(BAD):
        return "red"
    if what.endswith(LATER):
        return "yellow"
    return "green" if what.endswith(GOOD) else "cyan"
