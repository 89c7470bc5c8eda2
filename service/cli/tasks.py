"""What `callboard dead`, `requeue`, `resolve`, `cancel` and `purge` do, for all tenants."""

import getpass
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import assert_never
from uuid import UUID

import click
import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError
from rich.console import Console, Group
from rich.padding import Padding
from rich.text import Text
from sqlalchemy import text as sql
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.ledger import Canceling, Ledger, State
from callboard_workers.ledger.operations import cancel_queued, waiting
from callboard_workers.ledger.operations import resolve as settle
from callboard_workers.redis import address
from service.db import engine as db
from service.settings import Settings
from service.tasks import buried
from service.tasks.repository import TaskReport, dead_letters

MAX_SHOWN = 1000
STATES = sql("SELECT id, state FROM messages WHERE id = ANY(:ids)")


async def show(
    settings: Settings,
    *,
    actor: str | None = None,
    error: str | None = None,
    state: str | None = None,
    limit: int = 50,
    as_json: bool = False,
    console: Console | None = None,
) -> int:
    """List what waits for a person, the newest first."""
    async with _engine(settings) as engine, engine.connect() as connection:
        found = await dead_letters(connection, None, actor=actor, error=error, state=state, limit=limit + 1)
    found += await _buried(settings, actor, error, state)
    if as_json:
        click.echo(msgspec.json.encode(found[:limit]).decode())
        return 0
    out = console or Console()
    if not found:
        out.print("Nothing waits for a person.")
    elif out.is_terminal:
        for report in found[:limit]:
            out.print(_drawn(report))
        out.print(Text(_advice(len(found), limit), "dim"))
    else:
        for report in found[:limit]:
            line = f"{report.id} {report.state} {report.name} {report.updated_at.isoformat()} {reason(report)}"
            out.print(line, markup=False, highlight=False, soft_wrap=True)
    return 0


async def requeue(
    settings: Settings,
    ids: Sequence[str] = (),
    *,
    actor: str | None = None,
    error: str | None = None,
    state: str = "dead",
    yes: bool = False,
) -> int:
    """Queue dead letters again: `ids` whatever their state, or at most 1,000 chosen by `actor`, `error`, `state`.

    1 where one of `ids` was left: it is none, or not any more, or another message of its key is at work.
    """
    if not ids and actor is None and error is None:
        raise click.UsageError("Name the ids, or choose by --actor or --error.")
    async with _engine(settings) as engine:
        wanted = _each(ids) or await _chosen(engine, actor, error, state)
        if not ids:
            wanted = [*wanted, *(report.id for report in await _buried(settings, actor, error, state))][:MAX_SHOWN]
        if not wanted:
            click.echo("There is nothing to queue again.")
            return 0
        if not ids and not yes and not click.confirm(f"Queue {len(wanted)} again?", default=False):
            return 1
        ledger = Ledger(engine)
        try:
            moved = set(await ledger.requeue(wanted, by=f"cli:{getpass.getuser()}", reason="command line"))
        finally:
            await ledger.close()
        if left := [id for id in wanted if id not in moved]:
            async with _redis(settings) as client:
                moved.update(await buried.requeue(client, left, settings.redis_key_prefix))
        return await _tell(engine, wanted, moved, "queued again")


async def resolve(settings: Settings, ids: Sequence[str], *, state: str, reason: str = "") -> int:
    """Settle doubts: `ids` are `done` after all, `dead` or `held`. 1 where one of them was left: it is not in doubt."""
    wanted = _each(ids)
    async with _engine(settings) as engine:
        async with engine.begin() as connection:
            by = f"cli:{getpass.getuser()}"
            moved = set(await settle(connection, wanted, State(state), by=by, reason=reason or "command line"))
        if state == State.DONE and (left := [id for id in wanted if id not in moved]):
            async with _redis(settings) as client:
                moved.update(await buried.remove(client, left, settings.redis_key_prefix))
        return await _tell(engine, wanted, moved, state)


async def cancel(settings: Settings, id: str) -> int:
    """Cancel a task; 1 where there is none, or it is too late."""
    wanted = task_id(id)
    async with _engine(settings) as engine:
        ledger = Ledger(engine)
        try:
            told = await ledger.cancel(wanted)
        finally:
            await ledger.close()
    match told:
        case Canceling.CANCELED:
            click.echo(f"{wanted} canceled")
        case Canceling.REQUESTED:
            click.echo(f"{wanted} runs; it is stopped within ten seconds")
        case Canceling.REFUSED:
            click.echo(f"{wanted} has ended, or passed its point of no return", err=True)
        case Canceling.UNKNOWN:
            click.echo(f"There is no task {wanted}", err=True)
        case _:
            assert_never(told)
    return 0 if told in (Canceling.CANCELED, Canceling.REQUESTED) else 1


async def purge(settings: Settings, queue: str, *, really: bool = False, yes: bool = False) -> int:
    """Cancel all tasks that wait in a queue, of all tenants; `really` false: only say how many there are.

    1 where the question was answered with no.
    """
    async with _engine(settings) as engine:
        found = await waiting(engine, queue)
        click.echo(f"Queue {queue}: {found.queued} tasks wait, {found.running} run.")
        if not really:
            click.echo(
                "Nothing was canceled. `celery purge` deletes only the doorbells in Redis: these tasks stay in Postgres"
                f" and run all the same. To cancel them: callboard purge {queue} --cancel"
            )
            return 0
        if not found.queued:
            return 0
        if not yes and not click.confirm(f"Cancel {found.queued} tasks? This cannot be undone.", default=False):
            return 1
        by, count = f"cli:{getpass.getuser()}", 0
        async for canceled in cancel_queued(engine, queue, until=found.at, by=by, reason=f"purge of {queue}"):
            count += canceled
        click.echo(f"{count} tasks canceled; those that run go on.")
        return 0


def task_id(text: str) -> UUID:
    """Read a task's id in any spelling: a uuid, or a record's id such as `em_…`."""
    try:
        return UUID(text.rpartition("_")[2])
    except ValueError:
        raise click.BadParameter(f"{text!r} is not an id such as `callboard dead` shows.") from None


def reason(report: TaskReport) -> str:
    """The last error in one line."""
    error = report.error if isinstance(report.error, dict) else {"message": report.error}
    words = [str(error[name]) for name in ("type", "message") if error.get(name)]
    return "".join(character if character.isprintable() else " " for character in ": ".join(words))[:300]


def _each(ids: Sequence[str]) -> list[UUID]:
    return list(dict.fromkeys(task_id(text) for text in ids))


async def _tell(engine: AsyncEngine, wanted: Sequence[UUID], moved: Collection[UUID], done: str) -> int:
    """Print what became of each, for those that were left why; 1 where one was."""
    left = [id for id in wanted if id not in moved]
    async with engine.connect() as connection:
        states = {row.id: row.state for row in await connection.execute(STATES, {"ids": left})}
    for id in wanted:
        click.echo(f"{id} {done if id in moved else _why(states.get(id))}")
    return 1 if left else 0


def _why(state: str | None) -> str:
    match state:
        case None:
            return "left: there is no such task"
        case State.DEAD | State.HELD | State.UNCERTAIN:
            return f"left as it is ({state}): another task of its key is at work, or this cannot be said of it"
        case _:
            return f"left as it is: it is {state}"


async def _chosen(engine: AsyncEngine, actor: str | None, error: str | None, state: str) -> list[UUID]:
    async with engine.connect() as connection:
        found = await dead_letters(connection, None, actor=actor, error=error, state=state, limit=MAX_SHOWN)
    return [report.id for report in found]


def _drawn(report: TaskReport) -> Group:
    line = Text.assemble(str(report.id), "  ", (report.state, "red" if report.state == "dead" else "yellow"))
    line.append(f"  {report.name}")
    tries = report.attempts + report.crashes
    counted = "1 try" if tries == 1 else f"{tries} tries"
    more = f"{report.updated_at:%Y-%m-%d %H:%M:%S} UTC  {counted}  request {report.request_id or 'unknown'}"
    words = "\n".join(filter(None, [more, reason(report)]))
    return Group(line, Padding(Text(words, "dim", overflow="fold"), (0, 0, 0, 4)))


def _advice(found: int, limit: int) -> str:
    more = "There are more: --limit shows them. " if found > limit else ""
    ways = "`callboard requeue ID…` queues them again, `callboard resolve ID…` settles a doubt"
    return f"{more}{ways}; `callboard trace REQUEST` tells their story."


async def _buried(settings: Settings, actor: str | None, error: str | None, state: str | None) -> list[TaskReport]:
    """The failed tasks that only Redis keeps; none where it does not respond, which `callboard status` reports."""
    if state not in (None, State.DEAD):
        return []
    try:
        async with _redis(settings) as client:
            found = [each.report for each in await buried.read(client, settings.redis_key_prefix)]
    except (RedisError, OSError):
        return []
    chosen = [report for report in found if actor in (None, report.name)]
    return [report for report in chosen if error in (None, report.error["type"])]


@asynccontextmanager
async def _redis(settings: Settings) -> AsyncIterator[Redis]:
    client = address.async_client(settings.redis_url, socket_timeout=5, socket_connect_timeout=5)
    try:
        yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def _engine(settings: Settings) -> AsyncIterator[AsyncEngine]:
    engine = db.create_engine(settings, application="callboard-cli")
    try:
        yield engine
    finally:
        await engine.dispose()
