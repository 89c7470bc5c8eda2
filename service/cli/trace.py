"""`callboard trace`: the timeline of a request, drawn in a terminal, one line per fact elsewhere."""

import sys
from uuid import UUID

import msgspec
from rich.console import Console
from sqlalchemy.ext.asyncio import AsyncConnection

from service import slices
from service.db import engine as db
from service.settings import Settings
from service.tasks.repository import tenants_of
from service.timeline.find import Match, find
from service.timeline.text import drawn, lines, plain
from service.timeline.timeline import RequestStory, tell, tell_task


async def run(settings: Settings, wanted: str, console: Console | None = None, *, as_json: bool = False) -> int:
    """Print the timeline of a request, or of what another id belongs to; 1 where nothing is found.

    With `as_json` it is printed as the API returns it.
    """
    out = console or Console()
    engine = db.create_engine(settings, application="callboard-trace")
    try:
        async with engine.connect() as connection:
            told = await _tell(connection, wanted)
            found = [] if told else await find(connection, wanted, None)
            told = told or await _tell_of(connection, found)
    finally:
        await engine.dispose()
    if not told:
        say = Console(file=sys.stderr) if console is None else out
        say.print(_nothing(plain(wanted), found), markup=False, highlight=False, soft_wrap=True)
        return 1
    for story in told:
        _show(out, story, as_json)
    return 0


def _nothing(wanted: str, found: list[Match]) -> str:
    if found:
        return f"{wanted} is the id of a {found[0].kind}. Only requests and what they cause have a timeline."
    return (
        f"Nothing matches {wanted}. It is not the id of a stored request, task, email, broadcast, notification, job or "
        "webhook delivery: check that it is complete. Old records are deleted (RECORD_RETENTION)."
    )


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


async def _tell_of(connection: AsyncConnection, found: list[Match]) -> list[RequestStory]:
    """Tell the requests that caused these records; a task that no request caused is told by itself."""
    stories, told = slices.stories(), list[RequestStory | None]()
    requests = {(match.tenant_id, match.request_id) for match in found if match.tenant_id and match.request_id}
    for tenant, request_id in sorted(requests, key=str):
        told.append(await tell(connection, tenant, request_id, stories))
    if not requests:
        told += [await tell_task(connection, each.tenant_id, UUID(each.id)) for each in found if each.kind == "task"]
    return [story for story in told if story is not None]
