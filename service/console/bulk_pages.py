"""Broadcasts: progress by the status of their emails; paused, resumed, canceled."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.broadcasts import commands, repository, serializers
from service.broadcasts.models import Bulk, BulkStatus, gate_name
from service.broadcasts.schemas import BulkOut
from service.broadcasts.serializers import UNDER_WAY
from service.console.messages import Question, confirmed, many
from service.console.pages import ask, page, to, uuid_or_none
from service.console.visiting import form
from service.core.errors import Conflict, NotFound
from service.core.ids import bulk_id
from service.web import Request

LIMIT = 50
RECENT = timedelta(minutes=5)
VERBS = {"pause": commands.pause, "resume": commands.resume}

STOPPABLE = text("""
SELECT count(*) FILTER (WHERE state = 'queued') AS waiting, count(*) FILTER (WHERE state = 'running') AS running FROM (
    SELECT state FROM messages WHERE gate = :gate AND NOT admitted AND state = 'queued'
    UNION ALL SELECT state FROM messages WHERE gate = :gate AND admitted AND state IN ('queued', 'running')
) AS unfinished
""")
ENDS = text("SELECT id, ended_at FROM bulks WHERE id = ANY(:ids)")
PACE = text("""
SELECT count(*) AS emails, min(updated_at) AS since, clock_timestamp() AS now FROM emails
WHERE bulk_id = :id AND status NOT IN ('queued', 'sending')
    AND updated_at > clock_timestamp() - CAST(:recent AS interval)
""")


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """`done` of `total` emails have ended; `rate` of them a minute lately; `left` is the time that the rest takes."""

    done: int
    total: int
    ended_at: datetime | None
    rate: float | None = None
    left: timedelta | None = None

    @property
    def percent(self) -> int:
        """The share that is done; 100 only when all are."""
        return 100 * self.done // self.total if self.total else 0


@get("/bulk")
async def listing(request: Request) -> Response[str]:
    """List broadcasts, newest first, each with its counts."""
    before = uuid_or_none(request.query_params.get("before"))
    async with request.app.state.engine.connect() as connection:
        found = await repository.page(connection, request.user.tenant_id, before, LIMIT + 1)
        told = await serializers.told(connection, found[:LIMIT])
        ended = await ends(connection, [bulk.id for bulk in found[:LIMIT]])
    more = str(found[LIMIT - 1].id) if len(found) > LIMIT else None
    shown = [(each, progress(each, ended.get(bulk.id))) for each, bulk in zip(told, found, strict=False)]
    return page(request, "bulks.html", bulks=shown, more=more, before=before)


@get("/bulk/{id:str}")
async def look(request: Request, id: FromPath[str]) -> Response[str]:
    """Show a broadcast: its progress and rate, its emails by status, when it ended."""
    broadcast = _uuid(id)
    async with request.app.state.engine.connect() as connection:
        bulk = await _find(connection, broadcast, request.user.tenant_id)
        (told,) = await serializers.told(connection, [bulk])
        known = progress(told, (await ends(connection, [broadcast])).get(broadcast))
        if told.status == BulkStatus.RUNNING:
            known = await pace(connection, broadcast, known)
    return page(request, "bulk.html", broadcast=told, progress=known)


@post("/bulk/{id:str}/cancel", status_code=200)
async def cancel(request: Request, id: FromPath[str]) -> Response[Any]:
    """Cancel a broadcast once the number of emails that it stops is confirmed."""
    asked, broadcast = await form(request), _uuid(id)
    async with request.app.state.engine.begin() as connection:
        bulk = await _find(connection, broadcast, request.user.tenant_id, lock=confirmed(asked))
        if bulk.status not in {*commands.FROM[BulkStatus.CANCELED], BulkStatus.CANCELED}:
            raise Conflict(f"The broadcast is {bulk.status}: there is nothing left to cancel.", code="not-canceled")
        waiting, running = await _stoppable(connection, bulk)
        if not confirmed(asked):
            return ask(request, _question(bulk, waiting, running))
        await commands.cancel(connection, bulk)
    return to(f"/console/bulk/{bulk_id(broadcast)}?done=broadcast-canceled&n={waiting}")


@post("/bulk/{id:str}/{verb:str}", status_code=200)
async def act(request: Request, id: FromPath[str], verb: FromPath[str]) -> Response[Any]:
    """Pause or resume a broadcast."""
    await form(request)
    change = VERBS.get(verb)
    if change is None:
        raise NotFound("There is nothing at this path.")
    async with request.app.state.engine.begin() as connection:
        await change(connection, await commands.locked(connection, _uuid(id), request.user.tenant_id))
    return to(f"/console/bulk/{id}?done=" + {"pause": "paused", "resume": "resumed"}[verb])


async def ends(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, datetime | None]:
    """Return when each of these broadcasts ended; None for one that has not."""
    found = await connection.execute(ENDS, {"ids": list(ids)})
    return {row.id: row.ended_at for row in found}


def progress(broadcast: BulkOut, ended_at: datetime | None) -> Progress:
    """How far a broadcast is."""
    waiting = sum(broadcast.counts.get(word, 0) for word in UNDER_WAY)
    return Progress(done=max(0, broadcast.total - waiting), total=broadcast.total, ended_at=ended_at)


async def pace(connection: AsyncConnection, id: UUID, known: Progress) -> Progress:
    """Add how many emails a minute ended lately, and how long the rest takes at this rate."""
    row = (await connection.execute(PACE, {"id": id, "recent": RECENT})).one()
    if not row.emails or row.since is None:
        return known
    seconds = max(1.0, (row.now.astimezone(UTC) - row.since.astimezone(UTC)).total_seconds())
    rate = row.emails / seconds * 60
    left = timedelta(seconds=(known.total - known.done) / rate * 60)
    return msgspec.structs.replace(known, rate=round(rate, 1), left=left)


def _uuid(id: str) -> UUID:
    found = uuid_or_none(id.removeprefix("bk_"))
    if found is None:
        raise NotFound("There is no broadcast with this id.")
    return found


async def _find(connection: AsyncConnection, id: UUID, tenant_id: UUID, *, lock: bool = False) -> Bulk:
    bulk = await repository.find(connection, id, tenant_id, lock=lock)
    if bulk is None:
        raise NotFound("There is no broadcast with this id: it may belong to another tenant, or be deleted by now.")
    return bulk


async def _stoppable(connection: AsyncConnection, bulk: Bulk) -> tuple[int, int]:
    """Count the emails of a broadcast that wait, with recipients whose email is not written yet, and those running."""
    if bulk.status == BulkStatus.CANCELED:
        return 0, 0
    row = (await connection.execute(STOPPABLE, {"gate": gate_name(bulk.id)})).one()
    return row.waiting + bulk.total - bulk.expanded, row.running


def _question(bulk: Bulk, waiting: int, running: int) -> Question:
    name = bulk.name or bulk.request.template.key
    words = [f"{many(waiting, 'email')} of {bulk.total:,} will not be sent. This cannot be undone."]
    if running:
        words.append(f"{many(running, 'more email')} being sent right now may still arrive.")
    place = f"/console/bulk/{bulk_id(bulk.id)}"
    return Question(
        title=f"Cancel “{name}”?",
        words=words,
        action=f"{place}/cancel",
        label=f"Cancel {many(waiting, 'email')}",
        back=place,
        keep="Keep the broadcast",
    )


handlers = [listing, look, cancel, act]
