"""`callboard trace`: the story of a request, read from Postgres: drawn in a terminal, one line per fact elsewhere."""

import sys

import msgspec
from rich.console import Console
from sqlalchemy.ext.asyncio import AsyncConnection

from service import db, slices
from service.settings import Settings
from service.tasks.reading import tenants_of
from service.tasks.story import RequestStory, tell
from service.timeline import drawn, lines, plain


async def run(settings: Settings, request_id: str, console: Console | None = None, *, as_json: bool = False) -> int:
    """Print the story, with `as_json` as the API gives it; 1 where nobody knows the request."""
    out = console or Console()
    engine = db.create_engine(settings, application="callboard-trace")
    try:
        async with engine.connect() as connection:
            told = await _tell(connection, request_id)
    finally:
        await engine.dispose()
    if not told:
        say = Console(file=sys.stderr) if console is None else out
        nothing = f"Nothing is stored for a request {plain(request_id)}: nothing it asked for was accepted."
        say.print(nothing, markup=False, highlight=False, soft_wrap=True)
        return 1
    for story in told:
        _show(out, story, as_json)
    return 0


def _show(out: Console, story: RequestStory, as_json: bool) -> None:
    if as_json:
        _write(out, msgspec.json.encode(story).decode())
    elif out.is_terminal:
        out.print(drawn(story))
    else:
        for line in lines(story):
            _write(out, line)


def _write(out: Console, line: str) -> None:
    out.print(line, markup=False, highlight=False, soft_wrap=True)


async def _tell(connection: AsyncConnection, request_id: str) -> list[RequestStory]:
    stories = slices.stories()
    found = [await tell(connection, tenant, request_id, stories) for tenant in await tenants_of(connection, request_id)]
    return [story for story in found if story is not None]
