"""`callboard trace`: the story of a request as a timeline in the terminal, read from Postgres."""

from typing import Any

import msgspec
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text
from sqlalchemy.ext.asyncio import AsyncConnection

from service import db, slices
from service.settings import Settings
from service.tasks.reading import tenants_of
from service.tasks.story import Moment, RequestStory, tell

GOOD = ("_done", "_sent", "_success", "_received", "_delivered")
BAD = ("_dead", "_failed", "_expired", "_uncertain", "_held", "_canceled", "_crashed", "_lost", "_error", "_retry")
WIDTH = 28  # characters of the bar


async def run(settings: Settings, request_id: str, console: Console | None = None) -> int:
    """Print the story; 1 where nobody knows the request."""
    out = console or Console()
    engine = db.create_engine(settings, application="callboard-trace")
    try:
        async with engine.connect() as connection:
            told = await _tell(connection, request_id)
    finally:
        await engine.dispose()
    if not told:
        out.print(Text(f"Nothing is stored for a request {request_id}: nothing it asked for was accepted."))
        return 1
    for story in told:
        out.print(timeline(story))
    return 0


async def _tell(connection: AsyncConnection, request_id: str) -> list[RequestStory]:
    stories = slices.stories()
    found = [await tell(connection, tenant, request_id, stories) for tenant in await tenants_of(connection, request_id)]
    return [story for story in found if story is not None]


def timeline(story: RequestStory) -> RenderableType:
    """Draw a story: when, how long after the beginning, what, of which task or record, its fields."""
    table = Table(box=None, pad_edge=False, padding=(0, 1), show_header=False)
    for _ in range(4):
        table.add_column(overflow="fold")
    before = 0.0
    for moment in story.events:
        table.add_row(_bar(moment, story.duration_ms), _offset(moment, before), _what(moment), _fields(moment.detail))
        before = moment.offset_ms
    ended = f"{story.duration_ms / 1000:.3f} s, {len(story.tasks)} tasks" + ("" if story.complete else ", not all told")
    head = Text.assemble(
        ("request ", "dim"), (story.request_id, "bold"), f"  {story.started_at:%Y-%m-%d %H:%M:%S.%f} UTC"
    )
    return Group(head, table, Text(ended, "dim"))


def _bar(moment: Moment, total: float) -> Text:
    place = round((WIDTH - 1) * moment.offset_ms / total) if total else 0
    return Text("·" * place, "dim") + Text("●", _style(moment.what)) + Text("·" * (WIDTH - 1 - place), "dim")


def _offset(moment: Moment, before: float) -> Text:
    return Text.assemble(f"{moment.offset_ms:>9.1f} ms ", (f"+{moment.offset_ms - before:.1f}", "dim"))


def _what(moment: Moment) -> Text:
    return Text.assemble((moment.what, _style(moment.what)), " ", (moment.id[-12:], "dim"))


def _style(what: str) -> str:
    if what.endswith(BAD):
        return "red"
    return "green" if what.endswith(GOOD) else "cyan"


def _fields(detail: dict[str, Any]) -> Text:
    return Text("  ".join(f"{name}={_plain(value)}" for name, value in detail.items() if value not in (None, "")))


def _plain(value: Any) -> str:
    # Text(), not markup, and no control characters: what a server said must not steer the terminal.
    shown = value if isinstance(value, str | int | float) else msgspec.json.encode(value).decode()
    return "".join(character if character.isprintable() else "�" for character in str(shown))[:300]
